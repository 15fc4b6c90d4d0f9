//! Requests to other servers.
//!
//! `discover.rs` finds where a server is, `client.rs` asks it, `keys.rs` gets its signing keys; `sender.rs` brings it what
//! there is for it, `devices.rs` asks for the devices of its users. `fetch.rs` gets what events lack that came from others,
//! `pruned.rs` the content of what comes without;
//! `policy.rs` has policy servers
//! sign events; the rest is what local users ask for, a file for each.

mod ask;
mod asking;
mod auth_chain;
pub mod check;
mod client;
pub mod complete;
pub mod devices;
mod discover;
pub mod early_receipts;
mod elements;
pub mod ends;
mod error;
pub mod fetch;
mod fetches;
pub mod flights;
pub mod guests;
pub mod hierarchy;
pub mod history;
pub mod invite;
pub mod join;
mod kept;
mod key_pauses;
pub mod keys;
mod keys_of_users;
pub mod knock;
pub mod leave;
pub mod media;
pub mod membership;
mod multipart;
mod others;
pub mod places;
pub mod policy;
mod policy_servers;
pub mod pruned;
mod queried_keys;
pub mod queries;
mod questions;
pub mod resync;
pub mod sender;
mod silences;
mod single_events;
mod state_answer;
mod state_memory;
pub mod timestamp;
mod transaction;
mod unanswered;
pub mod unchecked;
pub mod unreached;
mod untold;

use std::sync::Arc;

use client::Client;
use discover::Discovery;
use flights::Flights;
use keys::KeyFetches;
use places::Places;
use tokio::sync::Notify;

pub use ask::escaped;
pub use client::Request;
pub use error::RemoteError;
pub use questions::Asker;

use super::large_bodies::LargeBodies;
use super::room_answers::RoomAnswers;
use super::transactions::{EarlyEvents, LastAnswers};
use crate::config::Config;
use crate::outgoing::Outgoing;

/// What requests to other servers share: the connections, and what was found out about servers.
pub struct Federation {
    client: Client,
    /// How many connections there may be.
    pub places: Places,
    /// What clients have this server ask.
    questions: questions::Questions,
    discovery: Arc<Discovery>,
    keys: KeyFetches,
    /// Rooms for which missing events are fetched.
    pub fetches: fetches::Fetches,
    /// What servers were asked because of what others had sent.
    others: others::Others,
    /// Events of rooms' states that wait for keys.
    unchecked: unchecked::UncheckedRooms,
    /// Users whose device lists are missing.
    pub missing_lists: devices::MissingLists,
    /// Rooms whose members are fetched.
    completions: complete::Completions,
    /// Servers that could not be asked for the one or the other.
    unreached: unreached::Unreached,
    /// A server has taken a transaction.
    taken: Notify,
    merges: ends::Merges,
    /// For what other servers tell of rooms' states.
    state_memory: state_memory::StateMemory,
    histories: history::Histories,
    policy_servers: policy_servers::PolicyServers,
    hierarchies: hierarchy::Hierarchies,
    /// Rooms that are, or were, resynchronised.
    pub resyncs: resync::Resyncs,
    /// Users, with rooms, whose own membership of these is being changed.
    pub own_changes: Flights,
    /// Rooms that are being joined.
    pub joins: Flights,
    /// For what is told of rooms that are being joined.
    pub early_events: EarlyEvents,
    /// Files that are being fetched.
    media: media::Fetching,
    /// Transactions of other servers that were answered.
    pub answered: LastAnswers,
    /// Requests of other servers that take much memory.
    pub large_bodies: LargeBodies,
    /// Answers that tell other servers of rooms.
    pub room_answers: RoomAnswers,
}

impl Federation {
    pub fn new(config: &Config, outgoing: &Arc<Outgoing>, places: Places) -> Federation {
        let resolve: Arc<[_]> = config.federation_resolve.clone().into();
        Federation {
            client: Client::new(outgoing, &resolve, places),
            places,
            questions: questions::Questions::new(places.questions),
            discovery: Arc::new(Discovery::new(outgoing, &resolve, places.deliveries)),
            keys: KeyFetches::default(),
            fetches: fetches::Fetches::default(),
            others: others::Others::default(),
            unchecked: unchecked::UncheckedRooms::default(),
            missing_lists: devices::MissingLists::default(),
            completions: complete::Completions::default(),
            unreached: unreached::Unreached::default(),
            taken: Notify::default(),
            merges: ends::Merges::default(),
            state_memory: state_memory::StateMemory::new(config.memory_budget_bytes),
            histories: history::Histories::default(),
            policy_servers: policy_servers::PolicyServers::default(),
            hierarchies: hierarchy::Hierarchies::new(places.questions),
            resyncs: resync::Resyncs::default(),
            own_changes: Flights::default(),
            joins: Flights::default(),
            early_events: EarlyEvents::default(),
            media: media::Fetching::default(),
            answered: LastAnswers::default(),
            large_bodies: LargeBodies::new(config.memory_budget_bytes),
            room_answers: RoomAnswers::default(),
        }
    }
}
