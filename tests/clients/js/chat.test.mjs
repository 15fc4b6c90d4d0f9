// Two users chat in an encrypted room: everything a person does on an ordinary day. The steps build on each other. They may
// be on different servers.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { EventType, MatrixEventEvent, MsgType, Preset, ReceiptType, RelationType, RoomEvent, RoomStateEvent, ThreadEvent } from "matrix-js-sdk";
import { decryptFile, encryptFile, eventOf, openThread, otherUrl, register, roomOf, typingOf, until } from "./session.mjs";

describe("two users in an encrypted room", () => {
    let alice, bob, roomId, hello;
    const clients = () => [alice, bob].filter(Boolean);

    before(async () => {
        [alice, bob] = await Promise.all([register("alice"), register("bob", { baseUrl: otherUrl })]);
    });

    after(() => clients().forEach((client) => client.stopClient()));

    it("makes the room, invites and joins", async () => {
        const encryption = { algorithm: "m.megolm.v1.aes-sha2" };
        const initial_state = [{ type: EventType.RoomEncryption, state_key: "", content: encryption }];
        const invite = [bob.getUserId()];
        const made = { preset: Preset.PrivateChat, name: "The burrow", initial_state, invite };
        ({ room_id: roomId } = await alice.createRoom(made));
        const invitation = await roomOf(bob, roomId, "invite");
        assert.equal(invitation.name, "The burrow");
        const seen = until(alice, [RoomStateEvent.Members], (_event, _state, member) => {
            return member.roomId === roomId && member.userId === bob.getUserId() && member.membership === "join";
        });
        await bob.joinRoom(roomId);
        await Promise.all([roomOf(bob, roomId, "join"), seen]);
        assert.equal(await bob.getCrypto().isEncryptionEnabledInRoom(roomId), true);
    });

    it("exchanges messages both ways", async () => {
        ({ event_id: hello } = await alice.sendTextMessage(roomId, "hello"));
        const seen = await eventOf(bob, roomId, hello);
        assert.equal(seen.getContent().body, "hello");
        assert.equal(seen.isEncrypted(), true);
        const { event_id: answer } = await bob.sendTextMessage(roomId, "hello yourself");
        assert.equal((await eventOf(alice, roomId, answer)).getContent().body, "hello yourself");
    });

    it("shows an edit in place of the message", async () => {
        const event = await eventOf(bob, roomId, hello);
        const seen = until(event, [MatrixEventEvent.Replaced], () => true, () => event.replacingEvent());
        await alice.sendMessage(roomId, {
            "msgtype": MsgType.Text,
            "body": "* hello, Bob",
            "m.new_content": { msgtype: MsgType.Text, body: "hello, Bob" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: hello },
        });
        await seen;
        const shown = () => event.getContent().body === "hello, Bob";
        await until(bob, [MatrixEventEvent.Decrypted, RoomEvent.Timeline], shown, shown);
    });

    it("counts a reaction", async () => {
        const content = { "m.relates_to": { rel_type: RelationType.Annotation, event_id: hello, key: "🥕" } };
        const { event_id: id } = await bob.sendEvent(roomId, EventType.Reaction, content);
        await eventOf(alice, roomId, id);
        const relations = alice.getRoom(roomId).relations;
        const reactions = relations.getChildEventsForEvent(hello, RelationType.Annotation, EventType.Reaction);
        const sorted = reactions.getSortedAnnotationsByKey().map(([key, events]) => [key, events.size]);
        assert.deepEqual(sorted, [["🥕", 1]]);
    });

    it("answers in a thread", async () => {
        const room = alice.getRoom(roomId);
        const now = () => room.getThread(hello)?.length > 0 && room.getThread(hello);
        const seen = until(room, [ThreadEvent.New, ThreadEvent.Update, ThreadEvent.NewReply], () => undefined, now);
        const content = {
            "msgtype": MsgType.Text,
            "body": "in the thread",
            "m.relates_to": { rel_type: RelationType.Thread, event_id: hello, is_falling_back: true },
        };
        await openThread(bob, roomId, hello);
        const { event_id: id } = await bob.sendMessage(roomId, hello, content);
        const thread = await seen;
        assert.equal(thread.rootEvent.getId(), hello);
        const events = () => thread.events.find((event) => event.getId() === id && event.getContent().body);
        const reply = await until(alice, [MatrixEventEvent.Decrypted, RoomEvent.Timeline], events, events);
        assert.equal(reply.getContent().body, "in the thread");
    });

    it("redacts", async () => {
        const { event_id: regret } = await bob.sendTextMessage(roomId, "regret");
        const event = await eventOf(alice, roomId, regret);
        const seen = until(alice, [RoomEvent.Redaction], () => event.isRedacted(), () => event.isRedacted());
        await bob.redactEvent(roomId, regret, undefined, { reason: "regret" });
        await seen;
        assert.equal(event.getContent().body, undefined);
    });

    it("tells who has read what", async () => {
        const { event_id: last } = await alice.sendTextMessage(roomId, "read this");
        const event = await eventOf(bob, roomId, last);
        const room = alice.getRoom(roomId);
        const read = () => room.hasUserReadEvent(bob.getUserId(), last);
        const seen = until(alice, [RoomEvent.Receipt], read, read);
        await bob.sendReceipt(event, ReceiptType.Read);
        await seen;
    });

    it("tells who is typing", async () => {
        const starts = typingOf(alice, roomId, bob.getUserId(), true);
        await bob.sendTyping(roomId, true, 30_000);
        await starts;
        const stops = typingOf(alice, roomId, bob.getUserId(), false);
        await bob.sendTyping(roomId, false, 0);
        await stops;
    });

    it("carries an encrypted file", async () => {
        const plain = Buffer.from("carrots ".repeat(10_000));
        const { data, file } = await encryptFile(plain);
        const { content_uri: url } = await alice.uploadContent(data, { type: "application/octet-stream" });
        const content = { msgtype: MsgType.File, body: "carrots.txt", file: { ...file, url } };
        const { event_id: id } = await alice.sendMessage(roomId, content);
        const received = (await eventOf(bob, roomId, id)).getContent().file;
        const address = bob.mxcUrlToHttp(received.url, undefined, undefined, undefined, false, true, true);
        const response = await fetch(address, { headers: { Authorization: `Bearer ${bob.getAccessToken()}` } });
        assert.equal(response.status, 200);
        const decrypted = await decryptFile(Buffer.from(await response.arrayBuffer()), received);
        assert.ok(decrypted.equals(plain));
    });

    it("logs out", async () => {
        const token = bob.getAccessToken();
        await bob.logout(true);
        const headers = { Authorization: `Bearer ${token}` };
        const response = await fetch(`${bob.baseUrl}/_matrix/client/v3/account/whoami`, { headers });
        assert.equal(response.status, 401);
        assert.equal((await response.json()).errcode, "M_UNKNOWN_TOKEN");
    });
});
