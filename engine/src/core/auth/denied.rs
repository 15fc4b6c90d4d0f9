//! The reasons for which the authorisation rules reject an event, and the numbers they have in each room version.
//!
//! Invariant: each way to be rejected is one row of the table below; the number is what that version's text calls it.

use std::fmt;

use crate::core::version::RoomVersion;

/// An event that the authorisation rules reject; its sender can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (authorisation rule {rule})")]
pub struct Denied {
    /// The rule's number in "Authorisation rules" of the room's version, such as `4.3.1`.
    pub rule: &'static str,
    /// Which rule that is, whatever its number; its `Display` is a sentence for humans.
    pub reason: Reason,
}

impl Denied {
    pub(super) fn new(version: &RoomVersion, reason: Reason) -> Denied {
        Denied { rule: reason.number(version), reason }
    }
}

/// The versions between which the numbering changed: each column of the table stands for the versions up to the next.
fn column(version: &RoomVersion) -> usize {
    match () {
        () if version.special_aliases => 0,
        () if !version.knock => 1,
        () if !version.restricted => 2,
        () if !version.integer_power_levels => 3,
        () if !version.privileged_creators => 4,
        () => 5,
    }
}

macro_rules! reasons {
    ($($name:ident [$($number:literal)*] $sentence:literal)*) => {
        /// Why an event is rejected: one for each rule that rejects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
        pub enum Reason {
            $(#[doc = $sentence] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the rules.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The number of the rule in the text of `version`; empty where that version has no such rule.
            pub fn number(self, version: &RoomVersion) -> &'static str {
                let numbers: [&'static str; 6] = match self {
                    $(Reason::$name => [$($number),*],)*
                };
                numbers.get(column(version)).copied().unwrap_or_default()
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Reason::$name => $sentence,)*
                })
            }
        }
    };
}

impl Reason {
    /// Whether the event is rejected for what its content is made of: whoever sends it, no power would let it pass.
    pub fn is_malformed(self) -> bool {
        matches!(
            self,
            Reason::MemberFormat
                | Reason::MembershipUnknown
                | Reason::PowerField
                | Reason::PowerMap
                | Reason::PowerUsers
                | Reason::PowerCreators
        )
    }
}

#[rustfmt::skip]
reasons! {
    // reason                 v1-5      v6        v7        v8-9      v10-11    v12
    CreatePrevEvents         ["1.1"     "1.1"     "1.1"     "1.1"     "1.1"     "1.1"    ] "a create event has no previous events"
    CreateRoomDomain         ["1.2"     "1.2"     "1.2"     "1.2"     "1.2"     ""       ] "the room id of a create event is of the sender's server"
    CreateRoomId             [""        ""        ""        ""        ""        "1.2"    ] "a create event has no room_id, it is made from the event's id"
    CreateRoomVersion        ["1.3"     "1.3"     "1.3"     "1.3"     "1.3"     "1.3"    ] "the room version of the create event is not known"
    CreateCreator            ["1.4"     "1.4"     "1.4"     "1.4"     "1.4"     ""       ] "the create event does not name its creator"
    CreateAdditionalCreators [""        ""        ""        ""        ""        "1.4"    ] "additional_creators is not a list of user ids"
    AuthEventsDuplicate      ["2.1"     "2.1"     "2.1"     "2.1"     "2.1"     "3.1"    ] "two auth events are of the same type and state key"
    AuthEventsUnexpected     ["2.2"     "2.2"     "2.2"     "2.2"     "2.2"     "3.2"    ] "an auth event is not one of those that are to be selected for this event"
    AuthEventsRejected       ["2.3"     "2.3"     "2.3"     "2.3"     "2.3"     "3.3"    ] "an auth event was itself rejected"
    CreateMissing            ["2.4"     "2.4"     "2.4"     "2.4"     "2.4"     "2"      ] "the room has no create event, or it is of another room"
    AuthEventsOtherRoom      ["2.5"     "2.5"     "2.5"     "2.5"     "2.5"     "3.5"    ] "an auth event is of another room"
    NotFederated             ["3"       "3"       "3"       "3"       "3"       "4"      ] "the room is closed to servers other than its creator's"
    AliasesStateKey          ["4.1"     ""        ""        ""        ""        ""       ] "m.room.aliases is a state event"
    AliasesDomain            ["4.2"     ""        ""        ""        ""        ""       ] "a server sets only its own aliases"
    MemberFormat             ["5.1"     "4.1"     "4.1"     "4.1"     "4.1"     "5.1"    ] "a membership has a state key and a membership"
    MemberAuthorisingUser    [""        ""        ""        "4.2.1"   "4.2.1"   "5.2.1"  ] "join_authorised_via_users_server is not a user whose server could have signed"
    JoinSender               ["5.2.2"   "4.2.2"   "4.2.2"   "4.3.2"   "4.3.2"   "5.3.2"  ] "nobody can join for another user"
    JoinBanned               ["5.2.3"   "4.2.3"   "4.2.3"   "4.3.3"   "4.3.3"   "5.3.3"  ] "the user is banned from the room"
    JoinRestricted           [""        ""        ""        "4.3.5.2" "4.3.5.2" "5.3.5.2"] "the join is not authorised by a joined user who may invite"
    JoinRule                 ["5.2.6"   "4.2.6"   "4.2.6"   "4.3.7"   "4.3.7"   "5.3.7"  ] "the room's join rule does not let this user join"
    ThirdPartyBanned         ["5.3.1.1" "4.3.1.1" "4.3.1.1" "4.4.1.1" "4.4.1.1" "5.4.1.1"] "the invited user is banned from the room"
    ThirdPartySigned         ["5.3.1.2" "4.3.1.2" "4.3.1.2" "4.4.1.2" "4.4.1.2" "5.4.1.2"] "the third-party invite is not signed"
    ThirdPartyFormat         ["5.3.1.3" "4.3.1.3" "4.3.1.3" "4.4.1.3" "4.4.1.3" "5.4.1.3"] "the third-party invite names no user or no token"
    ThirdPartyUser           ["5.3.1.4" "4.3.1.4" "4.3.1.4" "4.4.1.4" "4.4.1.4" "5.4.1.4"] "the third-party invite is for another user"
    ThirdPartyToken          ["5.3.1.5" "4.3.1.5" "4.3.1.5" "4.4.1.5" "4.4.1.5" "5.4.1.5"] "the room has no third-party invite with this token"
    ThirdPartySender         ["5.3.1.6" "4.3.1.6" "4.3.1.6" "4.4.1.6" "4.4.1.6" "5.4.1.6"] "the third-party invite was made by another user"
    ThirdPartySignature      ["5.3.1.8" "4.3.1.8" "4.3.1.8" "4.4.1.8" "4.4.1.8" "5.4.1.8"] "no signature of the third-party invite is of one of its keys"
    InviteSender             ["5.3.2"   "4.3.2"   "4.3.2"   "4.4.2"   "4.4.2"   "5.4.2"  ] "only a joined user can invite"
    InviteTarget             ["5.3.3"   "4.3.3"   "4.3.3"   "4.4.3"   "4.4.3"   "5.4.3"  ] "the invited user is in the room already, or banned"
    InviteLevel              ["5.3.5"   "4.3.5"   "4.3.5"   "4.4.5"   "4.4.5"   "5.4.5"  ] "the sender's power level is too low to invite"
    LeaveNotThere            ["5.4.1"   "4.4.1"   "4.4.1"   "4.5.1"   "4.5.1"   "5.5.1"  ] "the user is not in the room and has nothing to leave or decline"
    LeaveSender              ["5.4.2"   "4.4.2"   "4.4.2"   "4.5.2"   "4.5.2"   "5.5.2"  ] "only a joined user can kick or unban"
    UnbanLevel               ["5.4.3"   "4.4.3"   "4.4.3"   "4.5.3"   "4.5.3"   "5.5.3"  ] "the sender's power level is too low to unban"
    KickLevel                ["5.4.5"   "4.4.5"   "4.4.5"   "4.5.5"   "4.5.5"   "5.5.5"  ] "the sender's power level is too low to kick, or not above the target's"
    BanSender                ["5.5.1"   "4.5.1"   "4.5.1"   "4.6.1"   "4.6.1"   "5.6.1"  ] "only a joined user can ban"
    BanLevel                 ["5.5.3"   "4.5.3"   "4.5.3"   "4.6.3"   "4.6.3"   "5.6.3"  ] "the sender's power level is too low to ban, or not above the target's"
    KnockRule                [""        ""        "4.6.1"   "4.7.1"   "4.7.1"   "5.7.1"  ] "the room's join rule does not allow knocking"
    KnockSender              [""        ""        "4.6.2"   "4.7.2"   "4.7.2"   "5.7.2"  ] "nobody can knock for another user"
    KnockMembership          [""        ""        "4.6.4"   "4.7.4"   "4.7.4"   "5.7.4"  ] "a user who is banned, invited or joined cannot knock"
    MembershipUnknown        ["5.6"     "4.6"     "4.7"     "4.8"     "4.8"     "5.8"    ] "the membership is not known"
    SenderNotJoined          ["6"       "5"       "5"       "5"       "5"       "6"      ] "the sender is not joined to the room"
    ThirdPartyInviteLevel    ["7.1"     "6.1"     "6.1"     "6.1"     "6.1"     "7.1"    ] "the sender's power level is too low to invite by third-party identifier"
    RequiredLevel            ["8"       "7"       "7"       "7"       "7"       "8"      ] "the sender's power level is too low for events of this type"
    StateKeyUser             ["9"       "8"       "8"       "8"       "8"       "9"      ] "the state key is the id of another user"
    PowerField               ["10.3"    "9.3"     "9.3"     "9.3"     "9.1"     "10.1"   ] "a power level is not an integer"
    PowerMap                 ["10.4"    "9.4"     "9.4"     "9.4"     "9.2"     "10.2"   ] "events or notifications is not an object of integers"
    PowerUsers               ["10.1"    "9.1"     "9.1"     "9.1"     "9.3"     "10.3"   ] "users is not an object of integers by user id"
    PowerCreators            [""        ""        ""        ""        ""        "10.4"   ] "creators of the room have no entry in users"
    PowerFieldCurrent        ["10.3.1"  "9.3.1"   "9.3.1"   "9.3.1"   "9.5.1"   "10.6.1" ] "a power level that is above the sender's cannot be changed"
    PowerFieldNew            ["10.3.2"  "9.3.2"   "9.3.2"   "9.3.2"   "9.5.2"   "10.6.2" ] "a power level cannot be set above the sender's"
    PowerEntryCurrent        ["10.4.1"  "9.4.1"   "9.4.1"   "9.4.1"   "9.6.1"   "10.7.1" ] "the level of an event or notification that is above the sender's cannot be changed"
    PowerEntryNew            ["10.5.1"  "9.5.1"   "9.5.1"   "9.5.1"   "9.7.1"   "10.8.1" ] "the level of an event or notification cannot be set above the sender's"
    PowerUserCurrent         ["10.6.1"  "9.6.1"   "9.6.1"   "9.6.1"   "9.8.1"   "10.9.1" ] "the level of a user who is not below the sender cannot be changed"
    PowerUserNew             ["10.7.1"  "9.7.1"   "9.7.1"   "9.7.1"   "9.9.1"   "10.10.1"] "the level of a user cannot be set above the sender's"
    Redaction                ["11.3"    ""        ""        ""        ""        ""       ] "the sender's power level is too low to redact events of other servers"
}
