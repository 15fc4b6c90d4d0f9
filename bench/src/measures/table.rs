//! THE TABLE of measures, in the order of reports: names, bars, and what peers reached.

use super::{Bar, Better, Family, Measure, Published};

const fn published(tuwunel: f64, continuwuity: f64, synapse: Option<f64>) -> Published {
    Published { tuwunel: Some(tuwunel), continuwuity: Some(continuwuity), synapse }
}

const UNPUBLISHED: Published = Published { tuwunel: None, continuwuity: None, synapse: None };

/// Every measure, in the order of reports.
pub const MEASURES: &[Measure] = &[
    Measure {
        name: "send-64-rooms",
        title: "sends, 64 senders in 64 one-member rooms",
        unit: "/s",
        better: Better::Higher,
        bar: Bar::Value(6_000.0),
        family: Family::Sends,
        published: published(1_942.0, 1_827.0, Some(58.0)),
    },
    Measure {
        name: "send-cpu",
        title: "server CPU per 1,000 such sends",
        unit: "s",
        better: Better::Lower,
        bar: Bar::Value(0.2),
        family: Family::Sends,
        published: published(0.92, 0.99, Some(17.0)),
    },
    Measure {
        name: "send-paced",
        title: "one such send at half that rate, from when it was due, p99",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::None,
        family: Family::Sends,
        published: UNPUBLISHED,
    },
    Measure {
        name: "send-room-64",
        title: "sends, 64 senders in one room of 64 local members",
        unit: "/s",
        better: Better::Higher,
        bar: Bar::Value(3_000.0),
        family: Family::SharedRooms,
        published: published(98.0, 116.0, Some(41.0)),
    },
    Measure {
        name: "send-room-8",
        title: "sends, 64 senders in one room of 8 local members",
        unit: "/s",
        better: Better::Higher,
        bar: Bar::Value(5_000.0),
        family: Family::SharedRooms,
        published: published(283.0, 237.0, None),
    },
    Measure {
        name: "send-room-1000",
        title: "one send into a room of 1,000 local members, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(3.0),
        family: Family::LargeRoom,
        published: published(132.0, 102.0, Some(194.0)),
    },
    Measure {
        name: "send-room-ratio",
        title: "that send over one into a room of 2",
        unit: "×",
        better: Better::Lower,
        bar: Bar::Value(3.0),
        family: Family::LargeRoom,
        published: UNPUBLISHED,
    },
    Measure {
        name: "send-one",
        title: "one sender at a time, small room, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::OverSync(0.5),
        family: Family::OneSender,
        published: published(1.6, 2.1, Some(27.0)),
    },
    Measure {
        name: "deliver-one",
        title: "send to one waiting sync, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::OverSync(1.0),
        family: Family::Delivery,
        published: published(4.4, 3.9, Some(31.0)),
    },
    Measure {
        name: "deliver-100",
        title: "send to the last of 100 waiting syncs, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(8.0),
        family: Family::Delivery,
        published: published(53.0, 62.0, Some(691.0)),
    },
    Measure {
        name: "deliver-cpu",
        title: "server CPU per delivery, 100 waiting",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(0.05),
        family: Family::Delivery,
        published: published(0.9, 1.2, Some(6.0)),
    },
    Measure {
        name: "deliver-1000",
        title: "send to the last of 1,000 waiting syncs, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(60.0),
        family: Family::LargeRoom,
        published: UNPUBLISHED,
    },
    Measure {
        name: "deliver-1000-cpu",
        title: "server CPU until all 1,000 are answered",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(40.0),
        family: Family::LargeRoom,
        published: UNPUBLISHED,
    },
    Measure {
        name: "create-room",
        title: "createRoom, 8 at once",
        unit: "/s",
        better: Better::Higher,
        bar: Bar::Value(1_000.0),
        family: Family::Rooms,
        published: published(137.0, 136.0, Some(12.0)),
    },
    Measure {
        name: "join-1000",
        title: "join a room of 1,000 members, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(6.0),
        family: Family::LargeRoom,
        published: published(104.0, 81.0, Some(48.0)),
    },
    Measure {
        name: "members-1000",
        title: "members of that room, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(6.0),
        family: Family::LargeRoom,
        published: published(57.0, 62.0, Some(51.0)),
    },
    Measure {
        name: "initial-sync-100",
        title: "initial sync, 100 rooms, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(6.0),
        family: Family::InitialSync,
        published: published(67.0, 42.0, Some(341.0)),
    },
    Measure {
        name: "initial-sync-500",
        title: "initial sync, 500 rooms, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(25.0),
        family: Family::InitialSync,
        published: published(349.0, 170.0, Some(2_253.0)),
    },
    Measure {
        name: "messages-100",
        title: "/messages, pages of 100",
        unit: "events/s",
        better: Better::Higher,
        bar: Bar::Value(60_000.0),
        family: Family::History,
        published: published(8_349.0, 8_571.0, Some(978.0)),
    },
    Measure {
        name: "messages-1000",
        title: "/messages, pages of 1,000",
        unit: "events/s",
        better: Better::Higher,
        bar: Bar::Value(120_000.0),
        family: Family::History,
        published: published(20_781.0, 16_450.0, None),
    },
    Measure {
        name: "idle-sync",
        title: "sync with nothing new, 10,000 rooms, less a request that reads nothing, p50",
        unit: "ms",
        better: Better::Lower,
        bar: Bar::Value(0.05),
        family: Family::IdleSync,
        published: UNPUBLISHED,
    },
    Measure {
        name: "idle-sync-ratio",
        title: "that over the same with 10 rooms",
        unit: "×",
        better: Better::Lower,
        bar: Bar::Value(1.5),
        family: Family::IdleSync,
        published: UNPUBLISHED,
    },
    Measure {
        name: "memory-idle",
        title: "resident memory, fresh server",
        unit: "MB",
        better: Better::Lower,
        bar: Bar::Value(30.0),
        family: Family::Footprint,
        published: published(51.0, 62.0, Some(120.0)),
    },
    Measure {
        name: "memory-loaded",
        title: "resident memory after 50,000 events",
        unit: "MB",
        better: Better::Lower,
        bar: Bar::Value(120.0),
        family: Family::Footprint,
        published: published(227.0, 225.0, Some(313.0)),
    },
    Measure {
        name: "memory-peak",
        title: "resident memory, most under any of these loads",
        unit: "MiB",
        better: Better::Lower,
        // The default memory budget of 512 MiB and 60 MiB beside it.
        bar: Bar::Value(572.0),
        family: Family::Footprint,
        published: UNPUBLISHED,
    },
    Measure {
        name: "disk-empty",
        title: "disk of an empty server",
        unit: "MB",
        better: Better::Lower,
        bar: Bar::Value(5.0),
        family: Family::Footprint,
        published: published(63.0, 64.0, Some(2.0)),
    },
    Measure {
        name: "disk-loaded",
        title: "disk after 50,000 events",
        unit: "MB",
        better: Better::Lower,
        bar: Bar::Value(80.0),
        family: Family::Footprint,
        published: published(364.0, 262.0, None),
    },
    Measure {
        name: "disk-100000",
        title: "disk after 100,000 text messages and a restart",
        unit: "MiB",
        better: Better::Lower,
        bar: Bar::Value(90.0),
        family: Family::Footprint,
        published: UNPUBLISHED,
    },
    Measure {
        name: "start-million",
        title: "start with 1,000,000 events",
        unit: "s",
        better: Better::Lower,
        bar: Bar::Value(1.0),
        family: Family::Start,
        published: UNPUBLISHED,
    },
    Measure {
        name: "early-answers-1",
        title: "sends answered before a sync to disk, 1 sender",
        unit: "",
        better: Better::Lower,
        bar: Bar::Value(0.0),
        family: Family::Syncs,
        published: UNPUBLISHED,
    },
    Measure {
        name: "early-answers-64",
        title: "sends answered before a sync to disk, 64 senders",
        unit: "",
        better: Better::Lower,
        bar: Bar::Value(0.0),
        family: Family::Syncs,
        published: UNPUBLISHED,
    },
    Measure {
        name: "sends-per-sync",
        title: "sends that share one sync to disk, 64 senders",
        unit: "",
        better: Better::Higher,
        bar: Bar::Value(1.0),
        family: Family::Syncs,
        published: UNPUBLISHED,
    },
    resolving("resolve-joins-10", "fork of joins, 10 conflicted events: ruma-state-res over ours", 5.0),
    resolving("resolve-joins-100", "the same, 100", 5.0),
    resolving("resolve-joins-1000", "the same, 1,000", 5.0),
    resolving("resolve-joins-10000", "the same, 10,000", 5.0),
    resolving(
        "resolve-mixed-10",
        "fork of power levels, bans, kicks, joins, topics, 10 conflicted events",
        5.0,
    ),
    resolving("resolve-mixed-100", "the same, 100", 5.0),
    resolving("resolve-mixed-1000", "the same, 1,000", 10.0),
    resolving("resolve-mixed-10000", "the same, 10,000", 20.0),
    of_engine(
        "auth-difference-ratio",
        "auth difference of 10 new events, chain of 50,000 over one of 500",
        Family::Resolution,
        2.0,
    ),
    of_engine(
        "receive-message-ratio",
        "accepting a message, room of 100,000 members over one of 100",
        Family::Receive,
        1.3,
    ),
    of_engine(
        "receive-state-ratio",
        "accepting a state event, room of 100,000 members over one of 100",
        Family::Receive,
        2.0,
    ),
    of_engine(
        "resolve-fork-ratio",
        "resolving a fork of 10 events, room of 100,000 members over one of 1,000",
        Family::Receive,
        2.0,
    ),
    of_engine(
        "state-difference-ratio",
        "difference of states 10 changes apart, room of 100,000 members over one of 1,000",
        Family::Receive,
        2.0,
    ),
    Measure {
        unit: "KiB",
        ..of_engine(
            "state-event-bytes",
            "written per state event, room of 100,000 members",
            Family::Receive,
            8.0,
        )
    },
    Measure {
        unit: "events/s",
        better: Better::Higher,
        ..of_engine(
            "enter-100000",
            "entering a room of 100,000 members, signatures apart",
            Family::Receive,
            50_000.0,
        )
    },
    of_engine(
        "fan-out-1000",
        "one event to 1,000 destinations: durable and handed on, p50",
        Family::FanOut,
        20.0,
    )
    .in_unit("ms"),
    of_engine("fan-out-commits", "commits for it", Family::FanOut, 1.0).in_unit(""),
    Measure {
        better: Better::Higher,
        ..of_engine(
            "federation-inbound",
            "accepted events of another server, 50 per transaction, one room",
            Family::Inbound,
            3_000.0,
        )
        .in_unit("/s")
    },
    of_engine("idle-destination", "resident memory per idle destination", Family::IdleDestinations, 2.0)
        .in_unit("KiB"),
    of_engine(
        "federation-join-send",
        "joining a room of 20,000 members of another server and sending",
        Family::RemoteRoom,
        3.0,
    )
    .in_unit("s"),
    of_engine("federation-join-full", "until all its members are known", Family::RemoteRoom, 30.0)
        .in_unit("s"),
    of_engine("federation-join-memory", "resident memory that this took at most", Family::RemoteRoom, 300.0)
        .in_unit("MiB"),
    in_pair("remote-join-warren", "joining a room of 200 members on Warren, p50"),
    in_pair("remote-send-warren", "sending there, p50"),
    in_pair("remote-receive-warren", "from a send on Warren to the waiting sync of who joined, p50"),
    in_pair("remote-join-synapse", "joining a room of 200 members on Synapse, p50"),
    in_pair("remote-send-synapse", "sending there, p50"),
    in_pair("remote-receive-synapse", "from a send on Synapse to the waiting sync of who joined, p50"),
    in_pair("resident-join-warren", "Warren joining a room of 200 members here, p50"),
    in_pair("resident-send-warren", "sending there, p50"),
    in_pair("resident-receive-warren", "from a send on Warren to a waiting sync here, p50"),
    in_pair("resident-join-synapse", "Synapse joining a room of 200 members here, p50"),
    in_pair("resident-send-synapse", "sending there, p50"),
    in_pair("resident-receive-synapse", "from a send on Synapse to a waiting sync here, p50"),
    Measure {
        better: Better::Higher,
        ..together(
            "inbound-accepted",
            "events of another server until a user sees them, 50 per transaction, one room",
            Family::InboundPairs,
        )
        .in_unit("/s")
    },
    in_large_room(
        "remote-large-send-warren",
        "joining a room of 20,000 members by way of Warren and sending",
    ),
    in_large_room("remote-large-full-warren", "until all its members are known"),
    in_large_room("remote-large-memory-warren", "resident memory that this took at most").in_unit("MiB"),
    in_large_room("remote-large-send-synapse", "joining it by way of Synapse and sending"),
    in_large_room("remote-large-full-synapse", "until all its members are known"),
    in_large_room("remote-large-memory-synapse", "resident memory that this took at most").in_unit("MiB"),
    in_large_room("resident-large-send-warren", "Warren joining it by way of this server and sending"),
    in_large_room("resident-large-full-warren", "until Warren knows all its members"),
    in_large_room("resident-large-send-synapse", "Synapse joining it by way of this server and sending"),
    in_large_room("resident-large-full-synapse", "until Synapse knows all its members"),
];

/// A measure of the engine in this process, which no other server takes: by default a ratio that is to be small.
const fn of_engine(name: &'static str, title: &'static str, family: Family, bar: f64) -> Measure {
    Measure {
        name,
        title,
        unit: "×",
        better: Better::Lower,
        bar: Bar::Value(bar),
        family,
        published: UNPUBLISHED,
    }
}

/// How many times faster we resolve than `ruma-state-res`.
const fn resolving(name: &'static str, title: &'static str, bar: f64) -> Measure {
    Measure { better: Better::Higher, ..of_engine(name, title, Family::Resolution, bar) }
}

/// A figure of servers of both kinds in one run of the family: no worse than Synapse in the same place.
const fn together(name: &'static str, title: &'static str, family: Family) -> Measure {
    Measure { bar: Bar::TimesSynapse(1.0), ..of_engine(name, title, family, 0.0) }
}

/// Such a one of servers in rooms of each other.
const fn in_pair(name: &'static str, title: &'static str) -> Measure {
    together(name, title, Family::Pairs).in_unit("ms")
}

/// Such a one of servers that join a large room.
const fn in_large_room(name: &'static str, title: &'static str) -> Measure {
    together(name, title, Family::LargePairs).in_unit("s")
}

impl Measure {
    const fn in_unit(self, unit: &'static str) -> Measure {
        Measure { unit, ..self }
    }
}
