//! THE TABLE of measures, and the families that take them: measures that need the same rooms and users are taken by one
//! family, on one fresh server. To add a measure, add its row here and its figure in its family's file.

pub mod delivery;
pub mod footprint;
pub mod history;
pub mod idle_sync;
pub mod initial_sync;
pub mod large_room;
pub mod rooms;
pub mod sends;
pub mod start;
pub mod syncs;

use crate::context::Context;
use crate::error::Result;

/// A 4 KiB append with `fdatasync` on the machine where the published figures were taken, p50 in milliseconds.
const PUBLISHED_SYNC_MS: f64 = 0.23;

/// Measures taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Memory and disk, before and after a load.
    Footprint,
    /// Many senders, one room each.
    Sends,
    /// Many senders in one room.
    SharedRooms,
    /// One sender at a time.
    OneSender,
    /// From a send to waiting syncs.
    Delivery,
    /// Making rooms.
    Rooms,
    /// A room of a thousand members.
    LargeRoom,
    /// First syncs.
    InitialSync,
    /// Paging through a room's history.
    History,
    /// Syncs with nothing new.
    IdleSync,
    /// Starting on a large database.
    Start,
    /// What the server syncs to disk before it acknowledges.
    Syncs,
}

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// Shown, not judged.
    None,
    /// This value.
    Value(f64),
    /// So many milliseconds above the disk's own append and sync, measured in the same run.
    OverSync(f64),
}

/// What peers reached on one machine in November 2026; figures move with the machine, their ratios less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// Tuwunel 1.4.6, which does not sync to disk when it acknowledges.
    pub tuwunel: Option<f64>,
    /// continuwuity 26.8, likewise.
    pub continuwuity: Option<f64>,
    /// Synapse 1.163 on SQLite.
    pub synapse: Option<f64>,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// What the command line and the JSON call it.
    pub name: &'static str,
    /// What people read.
    pub title: &'static str,
    /// The figure's unit.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// Warren's bar.
    pub bar: Bar,
    /// Who takes it.
    pub family: Family,
    /// The peers' figures.
    pub published: Published,
}

impl Bar {
    /// The value to reach, given the disk's own append and sync in milliseconds.
    pub fn value(self, sync_ms: f64) -> Option<f64> {
        match self {
            Bar::None => None,
            Bar::Value(value) => Some(value),
            Bar::OverSync(above) => Some(sync_ms + above),
        }
    }
}

impl Better {
    /// How the bar is written before its value.
    pub fn sign(self) -> &'static str {
        match self {
            Better::Higher => "≥",
            Better::Lower => "≤",
        }
    }

    /// Whether a figure reaches a bar.
    pub fn reaches(self, figure: f64, bar: f64) -> bool {
        match self {
            Better::Higher => figure >= bar,
            Better::Lower => figure <= bar,
        }
    }

    /// How many times better `ours` is than `theirs`.
    pub fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Better::Higher => ours / theirs,
            Better::Lower => theirs / ours,
        }
    }
}

impl Measure {
    /// How many times better than Synapse's published figure the bar is: what one run must show, too.
    pub fn ratio_bar(&self) -> Option<f64> {
        let bar = self.bar.value(PUBLISHED_SYNC_MS)?;
        self.published.synapse.map(|synapse| self.better.ratio(bar, synapse))
    }
}

impl Family {
    /// In the order of running: what needs a fresh and quiet machine first, the long load last.
    pub const ALL: [Family; 12] = [
        Family::Footprint,
        Family::Sends,
        Family::SharedRooms,
        Family::OneSender,
        Family::Delivery,
        Family::Rooms,
        Family::LargeRoom,
        Family::InitialSync,
        Family::History,
        Family::IdleSync,
        Family::Syncs,
        Family::Start,
    ];

    /// Takes the family's measures; the figures taken before a failure stay in the context.
    pub async fn run(self, ctx: &mut Context) -> Result<()> {
        match self {
            Family::Footprint => footprint::run(ctx).await,
            Family::Sends => sends::run(ctx).await,
            Family::SharedRooms => sends::run_shared(ctx).await,
            Family::OneSender => sends::run_one(ctx).await,
            Family::Delivery => delivery::run(ctx).await,
            Family::Rooms => rooms::run(ctx).await,
            Family::LargeRoom => large_room::run(ctx).await,
            Family::InitialSync => initial_sync::run(ctx).await,
            Family::History => history::run(ctx).await,
            Family::IdleSync => idle_sync::run(ctx).await,
            Family::Start => start::run(ctx).await,
            Family::Syncs => syncs::run(ctx).await,
        }
    }

    /// Whether a slow peer takes it too; the others have no published figure and would take it hours.
    pub fn for_slow_peers(self) -> bool {
        !matches!(self, Family::IdleSync | Family::Start | Family::Syncs)
    }
}

/// The row with this name.
pub fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}

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
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_family_has_a_measure() {
        let names: BTreeSet<&str> = MEASURES.iter().map(|measure| measure.name).collect();
        assert_eq!(names.len(), MEASURES.len());
        for family in Family::ALL {
            assert!(MEASURES.iter().any(|measure| measure.family == family), "{family:?}");
        }
    }

    #[test]
    fn bars_and_ratios_go_the_good_way() {
        assert!(Better::Higher.reaches(6_000.0, 6_000.0) && !Better::Higher.reaches(5_999.0, 6_000.0));
        assert!(Better::Lower.reaches(0.2, 0.2) && !Better::Lower.reaches(0.21, 0.2));
        assert_eq!(Better::Higher.ratio(600.0, 60.0), 10.0);
        assert_eq!(Better::Lower.ratio(2.0, 60.0), 30.0);
        assert_eq!(Bar::OverSync(0.5).value(0.25), Some(0.75));
        let sends = find("send-64-rooms").expect("a row");
        assert_eq!(sends.ratio_bar(), Some(6_000.0 / 58.0));
        assert_eq!(find("send-room-8").expect("a row").ratio_bar(), None);
    }

    #[test]
    fn every_bar_beats_the_published_servers() {
        for measure in MEASURES {
            let Some(bar) = measure.bar.value(PUBLISHED_SYNC_MS) else { continue };
            for peer in [measure.published.tuwunel, measure.published.continuwuity].into_iter().flatten() {
                assert!(measure.better.ratio(bar, peer) > 1.0, "{}", measure.name);
            }
        }
    }
}
