//! The room versions, as data: one constant each, written as its difference from the one before.
//!
//! Invariant: nothing else in the engine asks for a version by name; code asks for the rule it is about.
//! Source: Matrix specification v1.19, "Room Versions".

/// How an event gets its id. Specification: "Event IDs" of room versions 1, 3 and 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdFormat {
    /// `$opaque:server`, carried in the event itself; references to events are `[id, hashes]` pairs.
    Own,
    /// `$` and the reference hash in standard unpadded Base64.
    HashStandard,
    /// `$` and the reference hash in URL-safe unpadded Base64.
    HashUrlSafe,
}

/// The state resolution algorithm of a room version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateResolution {
    /// Room version 1.
    V1,
    /// Room versions 2 to 11.
    V2,
    /// Room version 12 (MSC4297).
    V2_1,
}

/// The rules of one room version. Each field names the rule, not the version that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomVersion {
    /// The version's identifier, as in `m.room.create` (`"1"` to `"12"`).
    pub id: &'static str,
    /// How event ids are made, and with them how events refer to each other.
    pub event_ids: EventIdFormat,
    /// Which algorithm merges forks.
    pub state_resolution: StateResolution,
    /// Signing keys must have been valid at `origin_server_ts` (v5).
    pub enforce_key_validity: bool,
    /// Floats, out-of-range integers and non-canonical input are refused (v6).
    pub strict_canonical_json: bool,
    /// `m.room.aliases` has an authorisation rule and a redaction rule of its own (v1 to v5).
    pub special_aliases: bool,
    /// The `notifications` of power levels are guarded as `events` are (v6).
    pub guard_notification_levels: bool,
    /// `m.room.redaction` has an authorisation rule of its own (v1 and v2).
    pub redaction_auth_rule: bool,
    /// Knocking (v7).
    pub knock: bool,
    /// Join rule `restricted` (v8).
    pub restricted: bool,
    /// Join rule `knock_restricted` (v10).
    pub knock_restricted: bool,
    /// Power levels must be integers, not strings (v10).
    pub integer_power_levels: bool,
    /// `content.creator` of `m.room.create` is required and names the creator (v1 to v10).
    pub creator_in_content: bool,
    /// The creators are above every power level and cannot be listed in it (v12).
    pub privileged_creators: bool,
    /// The room id is the hash of the create event, which has no `room_id` and is no one's auth event (v12).
    pub room_id_is_create_hash: bool,
    /// Redaction keeps `origin`, `membership` and `prev_state` at the top level (v1 to v10).
    pub redaction_keeps_legacy_keys: bool,
    /// Redaction keeps `allow` of `m.room.join_rules` (v8).
    pub redaction_keeps_allow: bool,
    /// Redaction keeps `join_authorised_via_users_server` of `m.room.member` (v9).
    pub redaction_keeps_authorising_user: bool,
    /// The redaction rules of v11: all of create's content, `invite` of power levels, `redacts` of redactions,
    /// `third_party_invite.signed` of members; and `redacts` lives in the content.
    pub redaction_v11: bool,
}

const V1: RoomVersion = RoomVersion {
    id: "1",
    event_ids: EventIdFormat::Own,
    state_resolution: StateResolution::V1,
    enforce_key_validity: false,
    strict_canonical_json: false,
    special_aliases: true,
    guard_notification_levels: false,
    redaction_auth_rule: true,
    knock: false,
    restricted: false,
    knock_restricted: false,
    integer_power_levels: false,
    creator_in_content: true,
    privileged_creators: false,
    room_id_is_create_hash: false,
    redaction_keeps_legacy_keys: true,
    redaction_keeps_allow: false,
    redaction_keeps_authorising_user: false,
    redaction_v11: false,
};
const V2: RoomVersion = RoomVersion { id: "2", state_resolution: StateResolution::V2, ..V1 };
const V3: RoomVersion =
    RoomVersion { id: "3", event_ids: EventIdFormat::HashStandard, redaction_auth_rule: false, ..V2 };
const V4: RoomVersion = RoomVersion { id: "4", event_ids: EventIdFormat::HashUrlSafe, ..V3 };
const V5: RoomVersion = RoomVersion { id: "5", enforce_key_validity: true, ..V4 };
const V6: RoomVersion = RoomVersion {
    id: "6",
    strict_canonical_json: true,
    special_aliases: false,
    guard_notification_levels: true,
    ..V5
};
const V7: RoomVersion = RoomVersion { id: "7", knock: true, ..V6 };
const V8: RoomVersion = RoomVersion { id: "8", restricted: true, redaction_keeps_allow: true, ..V7 };
const V9: RoomVersion = RoomVersion { id: "9", redaction_keeps_authorising_user: true, ..V8 };
const V10: RoomVersion = RoomVersion { id: "10", knock_restricted: true, integer_power_levels: true, ..V9 };
const V11: RoomVersion = RoomVersion {
    id: "11",
    creator_in_content: false,
    redaction_keeps_legacy_keys: false,
    redaction_v11: true,
    ..V10
};
const V12: RoomVersion = RoomVersion {
    id: "12",
    state_resolution: StateResolution::V2_1,
    privileged_creators: true,
    room_id_is_create_hash: true,
    ..V11
};

/// Every room version that this engine speaks, oldest first.
pub const ROOM_VERSIONS: [&RoomVersion; 12] = [&V1, &V2, &V3, &V4, &V5, &V6, &V7, &V8, &V9, &V10, &V11, &V12];

/// The version that new rooms get unless told otherwise (specification: "Room Versions", recommended default).
pub const DEFAULT_ROOM_VERSION: &RoomVersion = &V12;

/// The longest identifier of a room version, in characters. Specification: "Room version grammar".
const ID_CHARS_MAX: usize = 32;

impl RoomVersion {
    /// Whether `id` can be the identifier of a room version, which this engine need not speak. Specification: "Room version
    /// grammar".
    pub fn is_id(id: &str) -> bool {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        (1..=ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(allowed)
    }

    /// The version with identifier `id`, or `None` if it is not one that this engine speaks.
    pub fn get(id: &str) -> Option<&'static RoomVersion> {
        ROOM_VERSIONS.iter().copied().find(|version| version.id == id)
    }

    /// Whether an event of a room of one version is the same event in a room of the other: what differs is at most how forks
    /// are merged, as between versions 1 and 2.
    pub fn has_events_of(&self, other: &RoomVersion) -> bool {
        RoomVersion { id: other.id, state_resolution: other.state_resolution, ..*self } == *other
    }
}
