// A client that was away for 1,000 events catches up: it is told of the gap, fills it, and misses nothing.

import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Direction, EventType, Preset } from "matrix-js-sdk";
import { close, eventOf, register, reopen, roomOf } from "./session.mjs";

const missed = 1_000;

describe("a sync after a pause", () => {
    const clients = [];
    after(() => clients.forEach((client) => client.stopClient()));

    it(`brings all of ${missed} events, in order and readable`, async () => {
        const [alice, bob] = await Promise.all([register("alice"), register("bob", { kept: true })]);
        clients.push(alice, bob);
        const encryption = { algorithm: "m.megolm.v1.aes-sha2" };
        const initial_state = [{ type: EventType.RoomEncryption, state_key: "", content: encryption }];
        const { room_id: roomId } = await alice.createRoom({ preset: Preset.PublicChat, initial_state });
        await bob.joinRoom(roomId);
        await roomOf(bob, roomId, "join");
        const { event_id: before } = await alice.sendTextMessage(roomId, "before");
        await eventOf(bob, roomId, before);
        const session = await close(bob);

        for (let number = 0; number < missed; number++) await alice.sendTextMessage(roomId, String(number));
        const { event_id: last } = await alice.sendTextMessage(roomId, "after");

        const again = await reopen(session);
        clients.push(again);
        await eventOf(again, roomId, last);
        const room = again.getRoom(roomId);
        const timeline = room.getLiveTimeline();
        const has = () => timeline.getEvents().some((event) => event.getId() === before);
        while (!has() && timeline.getPaginationToken(Direction.Backward)) {
            await again.paginateEventTimeline(timeline, { backwards: true, limit: 100 });
        }
        const events = timeline.getEvents();
        await Promise.all(events.map((event) => again.decryptEventIfNeeded(event)));
        const texts = events.map((event) => event.getContent().body).filter((body) => /^\d+$/.test(body ?? ""));
        assert.deepEqual(texts, Array.from({ length: missed }, (_, number) => String(number)));
    });
});
