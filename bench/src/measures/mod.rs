//! Measures and the families that take them: measures that need the same rooms and users are taken by one family, on one
//! fresh server. To add a measure, add its row in `table.rs` and its figure in its family's file.

pub mod delivery;
pub mod fan_out;
pub mod federation;
pub mod footprint;
pub mod history;
pub mod idle_sync;
pub mod initial_sync;
pub mod large_room;
pub mod receive;
pub mod resolution;
pub mod rooms;
pub mod sends;
pub mod start;
pub mod syncs;
mod table;

use crate::context::{Context, InProcess, Several};
use crate::error::Result;

pub use table::MEASURES;

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
    /// State resolution, in this process.
    Resolution,
    /// Events of other servers, on an engine in this process.
    Receive,
    /// Events for many other servers, on an engine in this process.
    FanOut,
    /// Transactions of another server, which is the generator.
    Inbound,
    /// Other servers that nothing waits for.
    IdleDestinations,
    /// A large room of another server.
    RemoteRoom,
    /// Servers of two kinds in rooms of each other.
    Pairs,
    /// The same transactions for servers of two kinds.
    InboundPairs,
    /// A large room that servers of two kinds join, by way of either kind.
    LargePairs,
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
    /// So many times better than Synapse in the same place of the same run.
    TimesSynapse(f64),
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
            Bar::None | Bar::TimesSynapse(_) => None,
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
        if let Bar::TimesSynapse(ratio) = self.bar {
            return Some(ratio);
        }
        let bar = self.bar.value(PUBLISHED_SYNC_MS)?;
        self.published.synapse.map(|synapse| self.better.ratio(bar, synapse))
    }
}

impl Family {
    /// In the order of running: what needs a fresh and quiet machine first, the long load last.
    pub const ALL: [Family; 21] = [
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
        Family::Resolution,
        Family::Receive,
        Family::FanOut,
        Family::Inbound,
        Family::IdleDestinations,
        Family::RemoteRoom,
        Family::Pairs,
        Family::InboundPairs,
        Family::LargePairs,
    ];

    /// Whether it measures the engine in this process, and no server.
    pub fn is_in_process(self) -> bool {
        matches!(self, Family::Resolution | Family::Receive | Family::FanOut)
    }

    /// Whether it starts servers itself, which reach each other.
    pub fn starts_servers(self) -> bool {
        self.is_together() || matches!(self, Family::Inbound | Family::IdleDestinations | Family::RemoteRoom)
    }

    /// Whether it takes its measures of Warren and of Synapse at once.
    pub fn is_together(self) -> bool {
        matches!(self, Family::Pairs | Family::InboundPairs | Family::LargePairs)
    }

    /// Takes the measures of a family that needs no server; the figures taken before a failure stay in the context.
    pub fn run_in_process(self, ctx: &mut InProcess<'_>) -> Result<()> {
        match self {
            Family::Resolution => resolution::run(ctx),
            Family::Receive => receive::run(ctx),
            Family::FanOut => fan_out::run(ctx),
            _ => Ok(()),
        }
    }

    /// Takes the measures of a family that starts servers itself; the figures taken before a failure stay in the context.
    pub async fn run_several(self, ctx: &mut Several<'_>) -> Result<()> {
        match self {
            Family::Inbound => federation::inbound::run(ctx).await,
            Family::IdleDestinations => federation::idle::run(ctx).await,
            Family::RemoteRoom => federation::remote_room::run(ctx).await,
            Family::Pairs => federation::pairs::run(ctx).await,
            Family::InboundPairs => federation::inbound::run_together(ctx).await,
            Family::LargePairs => federation::large_pairs::run(ctx).await,
            _ => Ok(()),
        }
    }

    /// Takes the measures of a family that needs a server; the figures taken before a failure stay in the context.
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
            _ => Ok(()),
        }
    }

    /// Whether a slow peer takes it too; the others have no published figure and would take it hours.
    pub fn for_slow_peers(self) -> bool {
        let of_warren_alone = matches!(self, Family::IdleSync | Family::Start | Family::Syncs);
        self.is_together() || !of_warren_alone && !self.is_in_process() && !self.starts_servers()
    }
}

/// The row with this name.
pub fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}

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
    fn what_is_held_against_synapse_in_the_same_place_is_taken_of_both_at_once() {
        for measure in MEASURES {
            let is_held_so = matches!(measure.bar, Bar::TimesSynapse(_));
            assert_eq!(is_held_so, measure.family.is_together(), "{}", measure.name);
            assert!(!is_held_so || measure.family.for_slow_peers(), "{}", measure.name);
        }
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
