//! What rows follow from: facts are stored once, everything else can be made anew from them.
//!
//! Invariant: every keyspace stands here once. `check` has a pass for each, and repair makes anew what is not a fact.

/// Where the rows of a keyspace come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are said nowhere else: lost, they are lost.
    Fact,
    /// They are facts in part; the rest follows from what is named.
    Partly(&'static str),
    /// They follow from what is named.
    From(&'static str),
}

use Origin::{Fact, From, Partly};

/// The origin of each keyspace, by its name.
pub const ORIGINS: &[(&str, Origin)] = &[
    ("FACTS", Partly("the reserved marks lie above all numbers in use")),
    ("NAME_NUMS", From("NAME_TEXTS, of which it is a copy the other way, and the names in EVENT_BODIES")),
    ("NAME_TEXTS", From("NAME_NUMS, of which it is a copy the other way, and the names in EVENT_BODIES")),
    ("EVENT_NUMS", From("EVENT_BODIES")),
    (
        "EVENT_HEADERS",
        Partly(
            "EVENT_BODIES, EVENT_NUMS, TIMELINE; the states follow from the headers of the events before; \
             facts are what became of the event, its redaction and the client's transaction",
        ),
    ),
    ("EVENT_BODIES", Fact),
    ("TIMELINE", From("EVENT_HEADERS")),
    ("ROOM_HEADS", From("TIMELINE, EVENT_HEADERS, STATE_NODES")),
    (
        "STATE_NODES",
        From("EVENT_HEADERS, in the order of the graph; where another server told a state: a fact"),
    ),
    ("MEMBERS", From("ROOM_HEADS, STATE_NODES, EVENT_BODIES")),
    (
        "USER_ROOMS",
        Partly("ROOM_HEADS, STATE_NODES, EVENT_BODIES; facts are what was forgotten and when it began"),
    ),
    ("TRANSACTIONS", Fact),
    ("RELATIONS", From("EVENT_HEADERS, EVENT_BODIES")),
    ("EARLY_REDACTIONS", From("EVENT_HEADERS, EVENT_BODIES")),
    ("EARLY_RELATIONS", From("EVENT_HEADERS, EVENT_BODIES")),
    ("UNSHOWN_PROFILES", Fact),
    ("GUESTS_TO_REMOVE", Fact),
    ("UNCARRIED_SETTINGS", Fact),
    ("ENTRANCES", Fact),
    ("RECEIPTS", Partly("the event's position follows from EVENT_HEADERS")),
    ("RECEIPT_STREAM", From("RECEIPTS")),
    ("ALIASES", Fact),
    ("ROOM_ALIASES", From("ALIASES")),
    ("PUBLIC_ROOMS", Fact),
    ("THREADS", From("RELATIONS")),
    ("THREAD_STREAM", From("THREADS")),
    ("THREAD_USERS", From("RELATIONS")),
    ("USER_STREAM", Partly("memberships follow from EVENT_HEADERS, account data from ACCOUNT_DATA")),
    ("BACKWARD_EXTREMITIES", From("EVENT_HEADERS, EVENT_BODIES, GAPS")),
    ("GAPS", From("BACKWARD_EXTREMITIES, TIMELINE")),
    ("PARTIAL_STATES", From("EVENT_HEADERS")),
    ("STATE_CHANGES", Fact),
    ("CITATIONS", From("EVENT_HEADERS")),
    ("TOLD_STATES", Fact),
    ("PARTIAL_STRETCHES", Fact),
    ("ROOM_SERVERS", From("MEMBERS")),
    ("SERVER_USERS", From("MEMBERS; those who are no members any more are facts")),
    ("OUT_OF_BAND", Fact),
    ("SIGNED_INVITES", Fact),
    ("OUTGOING_EVENTS", Fact),
    ("PARTIAL_JOINS", Fact),
    ("EARLIER_JOINS", Fact),
    ("PARKED_PDUS", Fact),
    ("EARLY_RECEIPTS", Fact),
    ("UNCHECKED_EVENTS", Fact),
    ("UNCHECKED_MEMBERS", From("UNCHECKED_EVENTS")),
    ("STATUS_MESSAGES", Fact),
    ("PRESENT_USERS", Fact),
    ("OFF_TIMELINE", From("EVENT_HEADERS")),
    ("HISTORY_STARTS", Fact),
    ("HIDDEN_OUTLIERS", Fact),
    ("PURGES", Fact),
    ("ACCOUNTS", Fact),
    ("DEVICES", Fact),
    ("DEVICE_SIGHTINGS", Fact),
    ("ACCESS_TOKENS", Partly("DEVICES; a fact is when the token ends")),
    ("REFRESH_TOKENS", From("DEVICES")),
    ("REGISTRATION_TOKENS", Fact),
    ("PASSING_TOKENS", Fact),
    ("PROFILE_FIELDS", Fact),
    ("ACCOUNT_DATA", Fact),
    ("FILTERS", Fact),
    ("TIME_MARKS", Fact),
    ("ERASURES", Partly("whose there are follows from ACCOUNTS")),
    ("DEACTIVATIONS", Fact),
    ("DEVICE_KEYS", Fact),
    ("CROSS_SIGNING_KEYS", Fact),
    ("KEY_SIGNATURES", Fact),
    ("ONE_TIME_KEYS", Fact),
    ("FALLBACK_KEYS", Fact),
    ("KEY_STOCKS", From("ONE_TIME_KEYS, FALLBACK_KEYS")),
    (
        "MEMBER_STREAM",
        From("EVENT_HEADERS, EVENT_BODIES; where forks came together, and of invites and knocks: a fact"),
    ),
    ("TO_DEVICE", Fact),
    ("TO_DEVICE_COUNTS", From("TO_DEVICE")),
    (
        "STRANGER_SHARES",
        Partly(
            "for which devices there are any follows from TO_DEVICE_COUNTS; lost, they are counted from then on",
        ),
    ),
    ("KEY_BACKUPS", Partly("the count follows from BACKED_UP_KEYS")),
    ("BACKED_UP_KEYS", Fact),
    ("DEVICE_LIST_POSITIONS", Fact),
    ("REMOTE_DEVICE_LISTS", Fact),
    ("REMOTE_DEVICE_NAMES", Fact),
    ("MEDIA", Fact),
    ("MEDIA_ACCESS", Fact),
    ("PENDING_MEDIA", From("MEDIA")),
    ("REMOTE_MEDIA", Fact),
    ("PUBLISHED_KEYS", Fact),
    ("SERVER_KEYS", Fact),
    ("DESTINATIONS", Partly("how many messages wait follows from OUTGOING_EDUS")),
    ("SERVER_STAYS", Partly("who is in a room now follows from ROOM_SERVERS")),
    ("OUTGOING_EDUS", Fact),
    ("RECEIVED_MESSAGES", Fact),
    ("RECEIVED_COUNTS", Fact),
    ("RECEIVED_TRANSACTIONS", Fact),
    ("OUTGOING_LISTS", From("OUTGOING_EDUS, when the server fails next")),
    ("QUEUE_SENDERS", From("TO_DEVICE, OUTGOING_EDUS, when the next message comes")),
    ("QUEUE_SHARES", From("QUEUE_SENDERS")),
    ("QUEUE_RANKS", From("QUEUE_SHARES")),
];

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fact => f.write_str("fact"),
            Partly(from) => write!(f, "fact; {from}"),
            From(from) => f.write_str(from),
        }
    }
}
