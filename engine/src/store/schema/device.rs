//! Devices' keys, lists and queues, and key backups. Ids 90 to 129.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{
    core::{
        membership::Membership,
        num::{RoomNum, StreamPos, TextNum, UserNum},
    },
    store::{Positioned, Value, ValueWriter, read_record, record, write_record},
};

keyspaces! { TABLE:
    #[doc = "A device's identity keys: canonical JSON without signatures, which are rows of their own."]
    90 DEVICE_KEYS: Users, (UserNum, TextNum) => Bytes;
    #[doc = "A user's cross-signing key by usage (see CrossSigningUsage): canonical JSON without signatures."]
    91 CROSS_SIGNING_KEYS: Users, (UserNum, u8) => Bytes;
    #[doc = "A signature on a key: whose key, who signed, the device id or public key that is signed, the id of the signing key."]
    92 KEY_SIGNATURES: Users, (UserNum, UserNum, TextNum, String) => String;
    #[doc = "A device's unclaimed one-time keys by algorithm, in the order of their upload: the key as canonical JSON."]
    93 ONE_TIME_KEYS: Users, (UserNum, TextNum, TextNum, StreamPos, String) => Bytes;
    #[doc = "A device's fallback key of an algorithm."]
    94 FALLBACK_KEYS: Users, (UserNum, TextNum, TextNum) => FallbackKey;
    #[doc = "What is left of a device's one-time and fallback keys, so that each sync tells it by one read."]
    95 KEY_STOCKS: Users, (UserNum, TextNum) => KeyStock;
    #[doc = "Who came into a room, went out of it, or was asked into it or asks, by position: who has to follow whose devices from then on."]
    96 MEMBER_STREAM: Rooms, (RoomNum, StreamPos) => MemberChange;
    #[doc = "Messages to a device that it has not acknowledged: the event as JSON."]
    97 TO_DEVICE: Queues, (UserNum, TextNum, StreamPos) => Bytes;
    #[doc = "How many messages wait for a device."]
    98 TO_DEVICE_COUNTS: Queues, (UserNum, TextNum) => u32;
    #[doc = "A user's key backups by version; deleted ones stay, so that their versions are not used again."]
    99 KEY_BACKUPS: Users, (UserNum, u64) => KeyBackup;
    #[doc = "Sessions in a backup, by room id and session id with a zero byte between: the key data as JSON."]
    100 BACKED_UP_KEYS: Users, (UserNum, u64, String) => Bytes;
    #[doc = "The last position at which other servers were told of a change of a user's devices."]
    101 DEVICE_LIST_POSITIONS: Users, UserNum => StreamPos;
    #[doc = "Users of other servers whose devices are known here, by what their server told last."]
    102 REMOTE_DEVICE_LISTS: Users, UserNum => RemoteDeviceList;
    #[doc = "What a device of a user of another server is called."]
    103 REMOTE_DEVICE_NAMES: Users, (UserNum, TextNum) => String;
    #[doc = "How many bytes of messages a server that shares no room with the user, or (number zero) all such servers, have put into a device's queue since it had taken all of theirs, behind the position of the last."]
    104 STRANGER_SHARES: Queues, (UserNum, TextNum, TextNum) => Positioned<u64>;
}

/// A key that is given out when there are no one-time keys left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackKey {
    /// Its id within the algorithm.
    pub key_id: String,
    /// The key as canonical JSON.
    pub key: Vec<u8>,
    /// Whether it was given out.
    pub used: bool,
}

/// What is left of a device's keys for others to start sessions with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStock {
    /// Algorithms with the number of their unclaimed one-time keys.
    pub one_time: BTreeMap<TextNum, u32>,
    /// Algorithms of the fallback keys that have not been given out.
    pub unused_fallback: BTreeSet<TextNum>,
}

/// Somebody stands otherwise to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberChange {
    /// Who.
    pub user: UserNum,
    /// How.
    pub to: Move,
}

/// What a change of somebody's membership is to the others in the room, who encrypt for them or do so no longer. The first two were
/// once all there were, written as `false` and `true`: those are the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Move {
    /// Out of the room, which they were in.
    Out,
    /// Into it.
    In,
    /// Before its door: invited, or knocking.
    Asked,
}

impl Move {
    /// What a change from one membership to another is, if it is any.
    pub fn between(was: Option<Membership>, is: Option<Membership>) -> Option<Self> {
        match is {
            _ if is == was => None,
            Some(Membership::Join) => Some(Self::In),
            _ if was == Some(Membership::Join) => Some(Self::Out),
            Some(Membership::Invite | Membership::Knock) => Some(Self::Asked),
            _ => None,
        }
    }
}

/// A key backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBackup {
    /// How keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs: a JSON object, as the client wrote it.
    pub auth_data: Vec<u8>,
    /// Sessions stored.
    pub count: u64,
    /// Grows with every change of what is stored.
    pub etag: u64,
    /// Whether the user deleted it.
    pub deleted: bool,
}

/// The devices of a user of another server, whose keys stand in [`DEVICE_KEYS`] and [`CROSS_SIGNING_KEYS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDeviceList {
    /// The `stream_id` of what was taken in last; of a stale list a mark that grows with all that is told of it.
    pub stream_id: u64,
    /// Something was missed: the list has to be asked for anew.
    pub is_stale: bool,
    /// Since when new ids of devices are counted, in milliseconds since the epoch.
    pub counted_since_ms: u64,
    /// How many ids that no device here had before were told of the user since.
    pub new_ids: u32,
    /// Whether somebody has asked for the list while it was stale: they were answered by the user's server, or not at all.
    pub is_awaited: bool,
}

/// A row of before it was noted who asked for a stale list.
#[derive(Deserialize)]
struct RemoteDeviceListUnasked {
    stream_id: u64,
    is_stale: bool,
    counted_since_ms: u64,
    new_ids: u32,
}

/// A row of before new ids were counted.
#[derive(Deserialize)]
struct RemoteDeviceListBefore {
    stream_id: u64,
    is_stale: bool,
}

impl Value for RemoteDeviceList {
    fn write(&self, out: &mut ValueWriter) {
        write_record(self, out);
    }

    fn read(bytes: &Bytes) -> Option<Self> {
        // A record is read whole or not at all, so that none is taken for another. Of a stale list of before somebody may have asked.
        let unasked = || {
            let RemoteDeviceListUnasked { stream_id, is_stale, counted_since_ms, new_ids } =
                read_record(bytes)?;
            Some(Self { stream_id, is_stale, counted_since_ms, new_ids, is_awaited: is_stale })
        };
        read_record(bytes).or_else(unasked).or_else(|| {
            let RemoteDeviceListBefore { stream_id, is_stale } = read_record(bytes)?;
            Some(Self { stream_id, is_stale, is_awaited: is_stale, ..Self::default() })
        })
    }
}

record!(FallbackKey, KeyStock, MemberChange, KeyBackup);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_before_are_read_as_those_of_which_no_new_id_was_told_and_that_somebody_may_wait_for() {
        for is_stale in [true, false] {
            let list = RemoteDeviceList {
                stream_id: 700,
                is_stale,
                is_awaited: is_stale,
                ..RemoteDeviceList::default()
            };
            let now = list.encoded().bytes;
            assert_eq!(RemoteDeviceList::read(&now), Some(list.clone()));
            // What was added stands behind the rest: a flag, and before that two numbers that are zero here.
            assert_eq!(RemoteDeviceList::read(&now.slice(..now.len() - 1)), Some(list.clone()));
            assert_eq!(RemoteDeviceList::read(&now.slice(..now.len() - 2)), None);
            assert_eq!(RemoteDeviceList::read(&now.slice(..now.len() - 3)), Some(list));
        }
    }

    #[test]
    fn moves_of_before_invites_were_told_are_read() {
        let user = UserNum(700);
        for (joined, to) in [(false, Move::Out), (true, Move::In)] {
            let mut before = ValueWriter::default();
            write_record(&(user, joined), &mut before);
            assert_eq!(MemberChange::read(&before.bytes.into()), Some(MemberChange { user, to }));
        }
        let asked = MemberChange { user, to: Move::Asked };
        assert_eq!(MemberChange::read(&asked.encoded().bytes), Some(asked));
    }
}
