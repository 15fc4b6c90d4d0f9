// Devices that trust each other: cross-signing, verification, secret storage, key backup and its restore.
// The steps build on each other.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { ClientEvent, EventType, Preset } from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { eventOf, login, register, roomOf, until, withPassword } from "./session.mjs";
import { compareEmoji, nextRequest } from "./verification.mjs";

describe("devices and users that trust each other", () => {
    const clients = [];
    const secrets = {};
    // Secret storage asks for its key through these; the person would type the recovery key.
    const cryptoCallbacks = {
        getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], secrets.recovery.privateKey],
        cacheSecretStorageKey() {},
    };
    let alice, bob, roomId;
    const sent = [];

    const trusts = async (client, userId, deviceId) => {
        const status = await client.getCrypto().getDeviceVerificationStatus(userId, deviceId);
        return Boolean(status?.crossSigningVerified);
    };

    /** Waits until something that is asked for asynchronously holds, looking again whenever keys change. */
    const becomes = async (client, ask) => {
        const { KeysChanged, DevicesUpdated, UserTrustStatusChanged, KeyBackupStatus } = CryptoEvent;
        const cached = CryptoEvent.KeyBackupDecryptionKeyCached;
        const names = [KeysChanged, DevicesUpdated, UserTrustStatusChanged, KeyBackupStatus, cached, ClientEvent.Sync];
        while (!(await ask())) await until(client, names, () => true);
    };

    before(async () => {
        alice = await register("alice", { cryptoCallbacks });
        bob = await register("bob");
        clients.push(alice, bob);
        const encryption = { algorithm: "m.megolm.v1.aes-sha2" };
        const initial_state = [{ type: EventType.RoomEncryption, state_key: "", content: encryption }];
        ({ room_id: roomId } = await alice.createRoom({ preset: Preset.PublicChat, initial_state }));
        await bob.joinRoom(roomId);
        await roomOf(bob, roomId, "join");
    });

    after(() => clients.forEach((client) => client.stopClient()));

    it("sets up cross-signing, secret storage and key backup", async () => {
        const crypto = alice.getCrypto();
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(alice.getUserId()) });
        secrets.recovery = await crypto.createRecoveryKeyFromPassphrase();
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => secrets.recovery,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        await becomes(alice, () => crypto.isCrossSigningReady());
        await becomes(alice, () => crypto.isSecretStorageReady());
        await becomes(alice, () => crypto.getActiveSessionBackupVersion());
        await becomes(alice, () => trusts(alice, alice.getUserId(), alice.getDeviceId()));
    });

    it("verifies a second device, which then holds the secrets", async () => {
        const second = await login(alice.getUserId());
        clients.push(second);
        const coming = nextRequest(alice);
        await becomes(second, () => second.getCrypto().userHasCrossSigningKeys(alice.getUserId(), true));
        const request = await second.getCrypto().requestOwnUserVerification();
        const [mine, theirs] = await compareEmoji(request, await coming);
        assert.equal(mine, theirs);
        await becomes(alice, () => trusts(alice, alice.getUserId(), second.getDeviceId()));
        await becomes(second, async () => {
            const { privateKeysCachedLocally: keys } = await second.getCrypto().getCrossSigningStatus();
            return keys.masterKey && keys.selfSigningKey && keys.userSigningKey;
        });
        await becomes(second, async () => (await second.getCrypto().getSessionBackupPrivateKey()) !== null);
    });

    it("verifies another user, and with that all devices of theirs", async () => {
        await bob.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(bob.getUserId()) });
        await becomes(alice, () => alice.getCrypto().userHasCrossSigningKeys(bob.getUserId(), true));
        const { room_id: direct } = await alice.createRoom({
            preset: Preset.TrustedPrivateChat,
            invite: [bob.getUserId()],
            is_direct: true,
        });
        await roomOf(bob, direct, "invite");
        await bob.joinRoom(direct);
        await roomOf(alice, direct, "join");
        const coming = nextRequest(bob);
        const request = await alice.getCrypto().requestVerificationDM(bob.getUserId(), direct);
        const [mine, theirs] = await compareEmoji(request, await coming);
        assert.equal(mine, theirs);
        for (const [one, other] of [[alice, bob], [bob, alice]]) {
            await becomes(one, async () => {
                const status = await one.getCrypto().getUserVerificationStatus(other.getUserId());
                return status.isCrossSigningVerified();
            });
        }
        assert.equal(await trusts(alice, bob.getUserId(), bob.getDeviceId()), true);
    });

    it("backs up the keys of messages", async () => {
        const done = until(alice, [CryptoEvent.KeyBackupSessionsRemaining], (remaining) => remaining === 0);
        for (const text of ["one", "two", "three"]) {
            const { event_id: id } = await bob.sendTextMessage(roomId, text);
            assert.equal((await eventOf(alice, roomId, id)).getContent().body, text);
            sent.push([id, text]);
        }
        await done;
    });

    it("restores them on a new device after all others have logged out", async () => {
        const userId = alice.getUserId();
        for (const client of clients.filter((client) => client.getUserId() === userId)) await client.logout(true);
        const fresh = await login(userId, { cryptoCallbacks });
        clients.push(fresh);
        const crypto = fresh.getCrypto();
        await becomes(fresh, () => crypto.userHasCrossSigningKeys(userId, true));
        await crypto.bootstrapCrossSigning({});
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        const { imported, total } = await crypto.restoreKeyBackup();
        assert.ok(total > 0);
        assert.equal(imported, total);
        await roomOf(fresh, roomId, "join");
        for (const [id, text] of sent) {
            const event = await eventOf(fresh, roomId, id);
            assert.equal(event.getContent().body, text);
        }
        await becomes(fresh, () => trusts(fresh, userId, fresh.getDeviceId()));
    });
});
