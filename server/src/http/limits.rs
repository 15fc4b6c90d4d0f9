//! All limits of the HTTP side, each with its reason. Nothing else in the server makes up a number of this kind.

use std::time::Duration;

use super::route::Rate;

/// Bodies of ordinary requests. An event may have 65,536 bytes; what its sender writes with more escapes than the
/// canonical form has, or wraps into a request object, still fits in four times that.
pub const JSON_BODY_BYTES_MAX: usize = 256 * 1024;

/// Bodies that carry many objects: key uploads, key backup, to-device messages, room creation with initial state, account
/// data. matrix-js-sdk backs up 200 sessions at a time (about 200 KiB), and the `m.direct` of a bridge's user names ten
/// thousand rooms (about a megabyte); a hundred times an event leaves room for any client.
pub const BULK_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Devices of which keys are given out at once: all of a room of some ten thousand users, for whom clients ask at once. Such a request is
/// some megabytes, about as much as a body may have.
pub const CLAIMED_DEVICES_MAX: usize = 100_000;

/// Messages to devices in one request. Clients send 20 to 250, some all that a room takes, of some 700 bytes each, so that fewer than
/// these have as many bytes as there may be; and all whom they are to can be written nothing else while these are looked up.
pub const DEVICE_MESSAGES_MAX: usize = 10_000;

/// Keys that one request puts signatures on: those of all devices of a user who has hundreds, and clients sign one or two at a time. Nothing
/// else can be written for any of their users while these are looked up.
pub const SIGNED_KEYS_MAX: usize = 1_000;

/// Content of one type of account data. The largest is `m.direct`, which with ten thousand rooms, as users of bridges have, is
/// about a megabyte.
pub const ACCOUNT_DATA_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Entries of `initial_state` and `invite` together when a room is created, each an event to sign and all of them one write,
/// which takes a processor for some 60 ms then. Clients send some ten, bridges that carry a room over some hundreds.
pub const NEW_ROOM_EVENTS_MAX: usize = 1_000;

/// How long who creates a room waits for the invites of other servers' users: proxies give up after a minute, and a client
/// that is cut off creates another room.
pub const NEW_ROOM_INVITES_AWAITED_MAX: Duration = Duration::from_secs(20);

/// Bodies of transactions: 50 events and 100 ephemeral messages of up to 64 KiB each are 9.4 MiB; what their sender
/// writes with more escapes than the canonical form has still fits.
pub const TRANSACTION_BODY_BYTES_MAX: usize = 12 * 1024 * 1024;

/// A body from this size on is verified where it holds up no other request of its thread, and takes one of the places that
/// there are for large ones: 256 KiB take about a millisecond to read and write anew.
pub const BLOCKING_BODY_BYTES: usize = 256 * 1024;

/// What is asked with a body from this size on is decided where it holds up no other request of its thread: it may name some
/// thousand users, keys or events, which take milliseconds. A message and an upload of fifty one-time keys are smaller.
pub const APART_BODY_BYTES: usize = 32 * 1024;

/// `Authorization` headers of one request: a server signs with each of its keys, of which it has one or two.
pub const AUTHORIZATIONS_MAX: usize = 8;

/// Time in which a body that is read whole must have arrived. A phone on a 2G network sends 256 KiB in about this time.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// When a body was waited for so long, or came in pieces, the session is looked at again: it may have ended meanwhile. Almost
/// every body is there within some milliseconds of its head.
pub const PROMPT_BODY_TIME: Duration = Duration::from_millis(100);

/// Time for the body of a request that is refused without it.
pub const UNWANTED_BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest silence within a streamed body.
pub const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Path parameters in one path; the specification's most is four (`/state/{eventType}/{stateKey}` and its kin).
pub const PATH_PARAMETERS_MAX: usize = 6;

/// Request line and headers together. Access tokens, filters in query strings and proxies' additions stay far below;
/// it must be under 64 KiB because positions in a path are kept in 16 bits.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Time for a request's head, counted from the last write of the answer before, or from when a connection was accepted: it also ends
/// those that are idle, or never ask for anything, and those that take nothing of an answer, whose pieces would be held for ever.
/// Longer than the pause between two polls of any client, short enough that a hundred thousand silent sockets do not pile up. Proxies
/// give who takes nothing 60 seconds as a rule.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(90);

/// Time for a TLS handshake, which takes three round trips at most.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Requests at once on one HTTP/2 connection: a client's long poll and whatever a browser's page starts in parallel.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 250;

/// What an answer on HTTP/2 may buffer unsent.
pub const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// What the system takes for a connection and has not sent yet. It asks for more when half of that has gone: without it, when a third of
/// a buffer is free that grows to some megabytes, for which who reads slowly behind a proxy needs longer than [`HEAD_TIME_MAX`].
pub const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Time between being told to stop and dropping what is still open. Operators give a server five seconds in all; one
/// is left for closing the database.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(4);

/// Connections that wait to be accepted. After a restart all clients come back within a second or two, and those that find no
/// place try again only after a second; the system's own limit, 4,096 as a rule, holds besides.
pub const BACKLOG_MAX: i32 = 4096;

/// Pause after a failed accept, which happens when the whole system's file descriptors have run out: trying at once would only
/// spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is told that no connection is accepted because there are too many: often enough to be seen, and not once for
/// each that somebody opens.
pub const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Connections to the metrics' listener at once, which has places of its own so that it answers when all others are taken.
/// Prometheus has one.
pub const METRICS_CONNECTIONS_MAX: usize = 16;

/// Token buckets kept at most. At about 40 bytes each they stay below 8 MiB; more senders than this within the minute
/// between two sweeps is an attack, and then all start afresh.
pub const BUCKETS_MAX: usize = 200_000;

/// Sessions of interactive authentications at most, some 400 bytes each; the oldest are forgotten.
pub const UIA_SESSIONS_MAX: usize = 20_000;

/// Time for all stages of one interactive authentication, and for sending again what it was for: time enough to look up a
/// password, and to come back from where there is no network.
pub const UIA_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Answers that are kept for who sends a request again in its session; the oldest are forgotten. Far more than users prove
/// themselves for, or register, within the time of a session; with their greatest length, 8 MiB.
pub const UIA_ANSWERS_MAX: usize = 2_000;

/// Bytes of such an answer. The longest, a registration's, has the ids of a user and a device and two tokens.
pub const UIA_ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Bodies that are kept for the requests of their sessions that come without one; of the oldest, the session then waits for
/// one that has it. As many as answers; with their greatest length, 16 MiB.
pub const UIA_BODIES_MAX: usize = 2_000;

/// Bytes of such a body. A registration with the longest password has 5 KiB, cross-signing keys have 3 KiB, and 500 devices
/// to delete 7 KiB.
pub const UIA_BODY_BYTES_MAX: usize = 8 * 1024;

/// Nonces of shared-secret registration at most; a tool uses one at a time.
pub const NONCES_MAX: usize = 1_000;

/// Time between a nonce and its use, which are two requests of one tool.
pub const NONCE_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of a device id; clients make ten characters.
pub const DEVICE_ID_BYTES_MAX: usize = 255;

/// Bytes of a device's name, which lists show on a line.
pub const DEVICE_NAME_BYTES_MAX: usize = 512;

/// Time between two notes of when a device was last seen; so old may the time be that a user is told.
pub const SEEN_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Bytes of a display name; it is part of every membership event of its user.
pub const DISPLAY_NAME_BYTES_MAX: usize = 1024;

/// Bytes of the address of a picture: a server's name and an id of up to 255 bytes each, and some.
pub const AVATAR_URL_BYTES_MAX: usize = 1024;

/// Bytes of the name of a profile field, by the specification.
pub const PROFILE_KEY_BYTES_MAX: usize = 255;

/// Bytes of a type of account data, as of an event's type.
pub const ACCOUNT_DATA_TYPE_BYTES_MAX: usize = 255;

/// Bytes of a tag, by the specification.
pub const TAG_BYTES_MAX: usize = 255;

/// Characters of a password that the server makes, six bits each: more than anybody could try.
pub const MADE_PASSWORD_CHARS: usize = 20;

/// How long a login token is good that one device hands to another.
pub const LOGIN_TOKEN_TIME: Duration = Duration::from_secs(2 * 60);

/// How long an OpenID token is good.
pub const OPENID_TOKEN_TIME: Duration = Duration::from_secs(60 * 60);

/// A sustained rate and a burst: (requests per second, requests at once).
pub struct Allowance {
    pub per_second: f32,
    pub burst: f32,
}

/// What a user, or an address without a user, may do per rate class. The sustained rates are several times what a
/// person with a few devices does; the bursts let a client restore its session or a bot catch up.
pub fn allowance(rate: Rate) -> Option<Allowance> {
    let (per_second, burst) = match rate {
        Rate::None => return None,
        // A client that opens a space asks for hundreds of profiles and members within a second or two.
        Rate::Read => (100.0, 400.0),
        // Key claims and uploads for a large encrypted room.
        Rate::Write => (30.0, 200.0),
        // A fast typist sends one message a second; receipts and typing notices ride along.
        Rate::Send => (10.0, 100.0),
        // Joining a space's rooms at once.
        Rate::Join => (1.0, 30.0),
        // Ten wrong passwords, then one every five seconds: no use for guessing.
        Rate::Login => (0.2, 10.0),
        // Devices of several users behind one address that were logged out while they were away. Nobody guesses 192 bits.
        Rate::UnknownToken => (1.0, 60.0),
        Rate::Register => (0.1, 10.0),
        // A page of a picture-rich room.
        Rate::Media => (20.0, 200.0),
        // As-you-type searches.
        Rate::Search => (5.0, 30.0),
        // A large server in a few hundred common rooms sends some ten transactions a second; sixty of fifty events each
        // are more than two cores take in.
        Rate::Federation => (100.0, 1000.0),
        // A server that comes back after an outage hears from many others at once, all by one proxy perhaps. What is
        // fetched is stored, so that nobody may go on with it.
        Rate::Keys => (5.0, 300.0),
        // Only failures count in the end, so that the burst is also how many may be on their way at once.
        Rate::Unproven => (1.0, 300.0),
        // The largest servers' users invite some hundreds of ours when they make a room for all of them.
        Rate::Inviting => (1.0, 300.0),
        // Nobody reads more than a hundred invites at once, or two hundred in an hour. They stay until they are answered.
        Rate::Invited => (0.05, 150.0),
    };
    Some(Allowance { per_second, burst })
}

/// How long a token for the next page of a space is good. Clients ask for it when a user scrolls on.
pub const HIERARCHY_TOKEN_TIME: Duration = Duration::from_secs(10 * 60);

/// What is kept for the next pages of spaces, for all users and for one of them: the largest space takes a megabyte, most take
/// some kilobytes.
pub const HIERARCHY_WALKS_BYTES_MAX: usize = 64 * 1024 * 1024;
pub const HIERARCHY_WALKS_BYTES_OF_USER_MAX: usize = 4 * 1024 * 1024;
