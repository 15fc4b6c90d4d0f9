//! What is sent to other servers, and what of theirs was taken in. Ids 150 to 159.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{
    core::num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    store::{Positioned, Value, ValueWriter, read_record, record, write_record},
};

keyspaces! { TABLE:
    #[doc = "How far another server has been sent what is for it, and how its connection fares."]
    150 DESTINATIONS: Queues, TextNum => Destination;
    #[doc = "When another server was in a room: from a position on, up to and with another (the greatest while it is)."]
    151 SERVER_STAYS: Rooms, (TextNum, RoomNum, StreamPos) => StreamPos;
    #[doc = "What another server alone is to be told, behind the position of what it is to be told before of the same user's devices."]
    152 OUTGOING_EDUS: Queues, (TextNum, StreamPos) => Positioned<OutgoingEdu>;
    #[doc = "Ids of messages to devices that came from a server, with the time (milliseconds since the epoch), so that each comes once."]
    153 RECEIVED_MESSAGES: Queues, (TextNum, String) => u64;
    #[doc = "What a server's transaction was answered with."]
    154 RECEIVED_TRANSACTIONS: Queues, (TextNum, String) => ReceivedTransaction;
    #[doc = "Whose the messages of a long queue are (a device's or, of user zero, another server's): the side and number of who sent each (see outbox::shares)."]
    155 QUEUE_SENDERS: Queues, (UserNum, TextNum, u8, u64, StreamPos) => ();
    #[doc = "How many messages of a long queue a sender has, or (number zero) all of one side."]
    156 QUEUE_SHARES: Queues, (UserNum, TextNum, u8, u64) => u32;
    #[doc = "The senders of a long queue by how many of its messages they have."]
    157 QUEUE_RANKS: Queues, (UserNum, TextNum, u8, u32, u64) => ();
    #[doc = "The last row of each user's devices (0) or keys (1) in the queue of a server that fails; of user zero, up to where it was looked at, and which user is next."]
    158 OUTGOING_LISTS: Queues, (TextNum, UserNum, u8) => StreamPos;
    #[doc = "Since when the ids of a server's messages in RECEIVED_MESSAGES are counted, and how many came since."]
    159 RECEIVED_COUNTS: Queues, TextNum => ReceivedCount;
}

/// A server that is sent things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Whatever has a position up to this one was delivered, or need not be.
    pub delivered_to: StreamPos,
    /// While it catches up after a long silence: up to here it gets of each room that it is in only where that ends. Zero if it
    /// does not.
    pub catch_up_to: StreamPos,
    /// The transaction under way, which is repeated until it is acknowledged.
    pub in_flight: Option<InFlight>,
    /// How many messages to devices wait for it.
    pub messages_waiting: u32,
    /// How often in a row it could not be reached, or since an administrator had it tried.
    pub failures: u32,
    /// Since when it cannot be, in milliseconds since the epoch, or since when this server does not deal with it; zero if it can.
    pub failing_since_ms: u64,
    /// When it was tried last in vain, in milliseconds since the epoch.
    pub failed_ms: u64,
    /// When it is to be tried again, in milliseconds since the epoch.
    pub retry_ms: u64,
    /// When it last took something, in milliseconds since the epoch.
    pub succeeded_ms: u64,
    /// Until when it asked to be left alone, in milliseconds since the epoch; zero if it did not.
    pub asked_ms: u64,
    /// How it is sent what it missed of rooms that it leaves while it catches up, until it has taken all with which it does.
    pub making_up: Option<MakingUp>,
    /// The receipts of this server's users up to here it was told, or need not be. Behind it they may have been too: it is written
    /// with something else, or once in a while.
    pub receipts_told_to: StreamPos,
    /// Whether it may lack any of those behind that, since it was away. Else it lacks the last at most.
    pub lacks_receipts: bool,
}

impl Destination {
    /// Whether it could not be reached, or was not dealt with, since it last took something.
    pub fn was_away(&self) -> bool {
        self.failures > 0 || self.failing_since_ms > 0
    }

    /// Behind where there may be events that it is still to be sent.
    pub fn missed_from(&self) -> StreamPos {
        self.making_up.as_ref().map_or(self.delivered_to, |making_up| making_up.from.min(self.delivered_to))
    }
}

/// What a server that catches up is sent of stays that end meanwhile, in the order of their ends: each is sent as far as the
/// server had been brought when it ended. The rest follows with all the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakingUp {
    /// Where its catching up began: all up to here had been delivered.
    pub from: StreamPos,
    /// The end of the stay that is made up for. Those that ended before have been.
    pub end: StreamPos,
    /// Up to where it has been sent of that.
    pub sent_to: StreamPos,
    /// The same two once it has taken what is in flight, if that belongs to it.
    pub in_flight: Option<(StreamPos, StreamPos)>,
}

/// A row of before it was noted whether a server that is not away may lack more than the last receipts.
#[derive(Deserialize)]
struct DestinationToldReceipts {
    before: DestinationBefore,
    receipts_told_to: StreamPos,
}

/// A row of before it was noted which receipts a server was told.
#[derive(Deserialize)]
struct DestinationBefore {
    first: FirstDestination,
    asked_ms: u64,
    making_up: Option<MakingUp>,
}

/// A row of before it was noted for how long a server asked to be left alone, and what is made up for.
#[derive(Deserialize)]
struct FirstDestination {
    delivered_to: StreamPos,
    catch_up_to: StreamPos,
    in_flight: Option<InFlight>,
    messages_waiting: u32,
    failures: u32,
    failing_since_ms: u64,
    failed_ms: u64,
    retry_ms: u64,
    succeeded_ms: u64,
}

impl DestinationBefore {
    /// The same row now. Before it was noted up to where receipts were told, that was with the events.
    fn now(self, receipts_told_to: Option<StreamPos>) -> Destination {
        let Self { first, asked_ms, making_up } = self;
        Destination {
            delivered_to: first.delivered_to,
            catch_up_to: first.catch_up_to,
            in_flight: first.in_flight,
            messages_waiting: first.messages_waiting,
            failures: first.failures,
            failing_since_ms: first.failing_since_ms,
            failed_ms: first.failed_ms,
            retry_ms: first.retry_ms,
            succeeded_ms: first.succeeded_ms,
            asked_ms,
            making_up,
            receipts_told_to: receipts_told_to.unwrap_or(first.delivered_to),
            lacks_receipts: false,
        }
    }
}

impl Value for Destination {
    fn write(&self, out: &mut ValueWriter) {
        write_record(self, out);
    }

    fn read(bytes: &Bytes) -> Option<Self> {
        // A record is read whole or not at all, so that none is taken for another.
        if let Some(row) = read_record(bytes) {
            return Some(row);
        }
        if let Some(DestinationToldReceipts { before, receipts_told_to }) = read_record(bytes) {
            return Some(before.now(Some(receipts_told_to)));
        }
        if let Some(before) = read_record::<DestinationBefore>(bytes) {
            return Some(before.now(None));
        }
        let first: FirstDestination = read_record(bytes)?;
        Some(DestinationBefore { first, asked_ms: 0, making_up: None }.now(None))
    }
}

/// A transaction that was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Its id.
    pub id: String,
    /// When it was begun, in milliseconds since the epoch.
    pub begun_ms: u64,
    /// Its events that are for all in their rooms.
    pub events: Vec<EventNum>,
    /// What is for the server alone, other parts and events, by their positions in the queue.
    pub edus: Vec<StreamPos>,
    /// Up to where everything is delivered with it.
    pub delivers_to: StreamPos,
}

/// Something that another server is told beside what all in a room are told, and that must not be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutgoingEdu {
    /// Messages to devices: the content of an `m.direct_to_device` as JSON.
    Direct(Vec<u8>),
    /// A device of a user of this server changed, or is gone.
    DeviceList(UserNum, TextNum),
    /// The cross-signing keys of a user of this server changed.
    SigningKeys(UserNum),
    /// An event that came into a room while the server was on its way there, or that it refused when it was told of it.
    Event(EventNum),
}

/// A transaction that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedTransaction {
    /// When, in milliseconds since the epoch.
    pub received_ms: u64,
    /// The body of the answer.
    pub answer: Vec<u8>,
}

/// How many ids of messages came from a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedCount {
    /// Since when they are counted, in milliseconds since the epoch.
    pub since_ms: u64,
    /// How many came since.
    pub count: u32,
}

record!(OutgoingEdu, ReceivedTransaction, ReceivedCount);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_before_are_read_as_those_of_servers_that_asked_for_nothing_and_were_told_all_receipts() {
        let row = Destination {
            delivered_to: StreamPos(7),
            catch_up_to: StreamPos(900),
            in_flight: Some(InFlight { id: "1".into(), edus: vec![StreamPos(8)], ..InFlight::default() }),
            messages_waiting: 300,
            failures: 4,
            failing_since_ms: 5,
            failed_ms: 6_000,
            retry_ms: 70_000,
            succeeded_ms: 8,
            receipts_told_to: StreamPos(7),
            ..Destination::default()
        };
        let now = row.encoded().bytes;
        assert_eq!(Destination::read(&now), Some(row.clone()));
        // What was added stands behind the rest: two absences, how far receipts were told, and whether more are lacking.
        for added in [1, 2] {
            let before = now.slice(..now.len() - added);
            assert_eq!(Destination::read(&before), Some(row.clone()), "{added}");
        }
        let first = now.slice(..now.len() - 4);
        assert_eq!(Destination::read(&first), Some(row));
        assert_eq!(Destination::read(&first.slice(..first.len() - 1)), None);
    }
}
