// What the client tests share: users of an unmodified matrix-js-sdk, waiting for events, encrypted attachments.
//
// A test waits for what it wants to see and is told when that does not come; nothing sleeps.

import "./quiet.mjs";
import "fake-indexeddb/auto";
import { randomBytes, webcrypto } from "node:crypto";
import { ClientEvent, IndexedDBStore, MatrixEventEvent, RoomEvent, RoomMemberEvent, SyncState, ThreadEvent, createClient } from "matrix-js-sdk";

export const baseUrl = process.env.HOMESERVER_URL ?? "http://127.0.0.1:8008";
/** The homeserver of those who are to be on another one, where there is one. */
export const otherUrl = process.env.OTHER_HOMESERVER_URL ?? baseUrl;
export const password = "correct horse battery staple";
// A loaded machine may take its time; a test that waits longer has failed.
const waitMsMax = 60_000;

export const uniqueName = (word) => `${word}-${randomBytes(4).toString("hex")}`;

const newClient = (options = {}) => createClient({ baseUrl, useAuthorizationHeader: true, ...options });

/** Registers a user and starts a client for the first device, at `options.baseUrl` if it is given. */
export async function register(word, options = {}) {
    const username = uniqueName(word);
    const anonymous = newClient(options.baseUrl && { baseUrl: options.baseUrl });
    const session = await anonymous.registerRequest({ username, password, auth: { type: "m.login.dummy" } });
    return start(session, options);
}

/** Logs in to a further device of a user and starts a client for it. */
export async function login(userId, options) {
    const identifier = { type: "m.id.user", user: userId };
    const session = await newClient().loginRequest({ type: "m.login.password", identifier, password });
    return start(session, options);
}

/**
 * A client, once its first sync is done. It has its stores in memory unless it is to be `kept`: then they are databases
 * from which `reopen` goes on. The SDK has one name for the encryption database, so one client of a file can be kept.
 */
async function start({ user_id: userId, access_token: accessToken, device_id: deviceId }, { kept, ...options } = {}) {
    if (kept) options.store = new IndexedDBStore({ indexedDB: globalThis.indexedDB, dbName: accessToken });
    const client = newClient({ userId, accessToken, deviceId, ...options });
    await options.store?.startup();
    await client.initRustCrypto({ useIndexedDB: Boolean(kept) });
    const caughtUp = until(client, [ClientEvent.Sync], (state, _, data) => {
        return state === SyncState.Prepared && !data?.fromCache;
    });
    await client.startClient({ lazyLoadMembers: true, threadSupport: true, initialSyncLimit: 20 });
    await caughtUp;
    return client;
}

/** Ends a kept client as when its program is closed; `reopen` goes on from its databases. */
export async function close(client) {
    await client.store.save(true);
    client.stopClient();
    const session = { user_id: client.getUserId(), access_token: client.getAccessToken() };
    return { ...session, device_id: client.getDeviceId() };
}

/** Starts a client again on the databases of one that was closed. */
export const reopen = (session) => start(session, { kept: true });

/** Waits until one of the named events makes `check` true, and returns what `check` gave. */
export function until(emitter, names, check, now = undefined) {
    const early = now?.();
    if (early) return Promise.resolve(early);
    const { stack } = new Error("waiting from here");
    return new Promise((resolve, reject) => {
        const signal = AbortSignal.timeout(waitMsMax);
        const finish = () => {
            for (const name of names) emitter.off(name, look);
            signal.removeEventListener("abort", late);
        };
        const late = () => {
            finish();
            reject(new Error(`not seen within ${waitMsMax} ms\n${stack}`));
        };
        const look = (...values) => {
            const found = check(...values) || now?.();
            if (found) {
                finish();
                resolve(found);
            }
        };
        signal.addEventListener("abort", late);
        for (const name of names) emitter.on(name, look);
    });
}

/** The room, once the client has it with the membership that is wanted. */
export function roomOf(client, roomId, membership) {
    const now = () => {
        const room = client.getRoom(roomId);
        return room?.getMyMembership() === membership ? room : undefined;
    };
    return until(client, [ClientEvent.Room, RoomEvent.MyMembership], () => undefined, now);
}

/** The event, once the client has it and can read it. */
export function eventOf(client, roomId, eventId) {
    const now = () => {
        const room = client.getRoom(roomId);
        const event = room?.findEventById(eventId);
        return event && !event.isBeingDecrypted() && readable(event) ? event : undefined;
    };
    const names = [RoomEvent.Timeline, MatrixEventEvent.Decrypted, ClientEvent.Event, RoomEvent.LocalEchoUpdated];
    return until(client, names, () => undefined, now);
}

/**
 * Opens a thread that has no answer yet, as a client does that shows the thread's panel before the answer is written.
 * The SDK that meets a new thread by its first answer throws away that answer's local echo while it loads the thread.
 */
export function openThread(client, roomId, rootId) {
    const room = client.getRoom(roomId);
    const root = room.findEventById(rootId);
    const thread = room.createThread(rootId, root, [root], true);
    return until(room, [RoomEvent.TimelineReset, ThreadEvent.Update], () => undefined, () => thread.initialEventsFetched);
}

const readable = (event) => !event.isEncrypted() || (event.getClearContent() && !event.isDecryptionFailure());

/** Waits until a member of the room types, or no longer does. */
export const typingOf = (client, roomId, userId, typing) =>
    until(
        client,
        [RoomMemberEvent.Typing],
        (_, member) => member.roomId === roomId && member.userId === userId && member.typing === typing,
    );

/** Encrypts a file as the specification says (version v2: AES-CTR with a SHA-256 of the ciphertext). */
export async function encryptFile(data) {
    const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const counter = new Uint8Array(16);
    counter.set(randomBytes(8));
    const encrypted = await webcrypto.subtle.encrypt({ name: "AES-CTR", counter, length: 64 }, key, data);
    const hash = await webcrypto.subtle.digest("SHA-256", encrypted);
    const file = {
        v: "v2",
        key: await webcrypto.subtle.exportKey("jwk", key),
        iv: unpadded(counter),
        hashes: { sha256: unpadded(hash) },
    };
    return { data: Buffer.from(encrypted), file };
}

/** Decrypts what `encryptFile` made, after checking its hash. */
export async function decryptFile(data, file) {
    const hash = unpadded(await webcrypto.subtle.digest("SHA-256", data));
    if (hash !== file.hashes.sha256) throw new Error("the file's hash is another");
    const key = await webcrypto.subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    return Buffer.from(await webcrypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, data));
}

const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

/** Answers user-interactive authentication with the password. */
export const withPassword = (userId) => async (makeRequest) => {
    try {
        return await makeRequest(null);
    } catch (error) {
        if (error.httpStatus !== 401 || !error.data?.session) throw error;
        const identifier = { type: "m.id.user", user: userId };
        return makeRequest({ type: "m.login.password", session: error.data.session, identifier, password });
    }
};
