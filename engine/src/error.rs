//! What can go wrong, sorted by who can act on it.
//!
//! Invariant: no HTTP status and no Matrix error code appears here; the server maps variants to them in one place.

use std::sync::Arc;

use crate::{
    core::{auth::Reason, event::EventError, filter::FilterError, push_rules::RulesError},
    room::policy::{UnsignedEvent, WantedSignature},
    store::StorageError,
};

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum Error {
    /// The asker may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// What was asked makes no sense; the asker can correct it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// What was asked about is not there (or not for the asker to know of).
    #[error("{0} not found")]
    NotFound(What),
    /// It is there already, or has changed in the meantime.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The room's policy server has to sign an event first: it is to be asked, and the same command given again with what it
    /// signed ([`crate::command::WithSigned`]).
    #[error("the room's policy server, {}, has not signed the event", .0.policy.name)]
    Unsigned(Box<UnsignedEvent>),
    /// The store failed; only the operator can act.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why something is not allowed.
#[derive(Clone, Debug, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum Denied {
    /// The event is refused by the room's authorisation rules.
    #[error("{reason} (authorisation rule {rule})")]
    Rule {
        /// The rule by its number in the specification.
        rule: &'static str,
        /// Which rule that is; a sentence for a human.
        reason: Reason,
    },
    /// The asker is not in the room.
    #[error("you are not in this room")]
    NotInRoom,
    /// The room's history visibility hides from the asker what they ask for.
    #[error("the room does not show you what it was at that point")]
    HiddenState,
    /// The asker's power level is too low.
    #[error("your power level is too low for this")]
    PowerLevel,
    /// The event is one that nobody may redact.
    #[error("create events and access lists of servers cannot be redacted")]
    Unredactable,
    /// The room has a version in which this cannot be done.
    #[error("this cannot be done in a room of this version")]
    RoomVersion,
    /// It belongs to someone else.
    #[error("this is not yours to change")]
    NotYours,
    /// A public key is the same as another key's or a device's id, so that their key ids would be the same.
    #[error("this key id is in use")]
    KeyIdInUse,
    /// The name is reserved for an application service.
    #[error("this name is reserved")]
    Reserved,
    /// The account is deactivated.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The registration token is unknown, used up or too old.
    #[error("this registration token is not valid")]
    RegistrationToken,
    /// The access token is not of a guest by this name.
    #[error("this is not the access token of a guest with this user name")]
    NotThisGuest,
    /// The password or token was replaced while the request was under way.
    #[error("the credentials have changed")]
    CredentialsChanged,
    /// Too many media ids wait for their upload.
    #[error("too many of your media ids wait for their upload")]
    PendingMedia {
        /// When the first of them expires, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The room is not on this server and nobody here can help to join it.
    #[error("the room cannot be reached from here")]
    Unreachable,
    /// It is a user or an alias of another server, for which this one cannot do it.
    #[error("this user or alias belongs to another server")]
    OtherServer,
    /// The room does not admit guests.
    #[error("guests cannot be in this room")]
    GuestAccess,
    /// The user whom this is about is not in the room.
    #[error("this user is not in the room")]
    TargetNotInRoom,
    /// The user whom this is about is in the room.
    #[error("this user is in the room already")]
    TargetInRoom,
    /// The user whom this is about is not banned.
    #[error("this user is not banned from the room")]
    NotBanned,
    /// The room's access list shuts the asking server out.
    #[error("the room does not let this server take part")]
    ServerAcl,
    /// The user whom this is about wants no invites.
    #[error("this user does not want to be invited")]
    InvitesBlocked,
    /// Too many invites of the asking server, or of the inviting user, wait for the user's answer.
    #[error("too many invites from you or your server wait for this user's answer")]
    TooManyInvites,
    /// The asking server does not speak the room's version.
    #[error("the room has version {0}, which is not among those that were offered")]
    IncompatibleRoomVersion(&'static str),
    /// The room's rule lets members of certain rooms in, and this server does not know the members of all of them.
    #[error("this server cannot tell whether the user is in a room that would let them in")]
    UnableToAuthoriseJoin,
    /// The room's rule lets members of certain rooms in, and the user is in none of them.
    #[error("the user is in no room that would let them in")]
    JoinConditions,
    /// The user may come in, but no user of this server may vouch for it.
    #[error("no user of this server may let this user in; try another server")]
    UnableToGrantJoin,
}

/// What is wrong with the input.
#[derive(Clone, Debug, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum Invalid {
    /// An identifier has the wrong form.
    #[error("{what} is not valid: {why}")]
    Identifier {
        /// Which parameter.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A parameter has a value that makes no sense.
    #[error("{what}: {why}")]
    Parameter {
        /// Which parameter.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The name is not one that a user may have.
    #[error("this user name is not allowed: {0}")]
    UserName(&'static str),
    /// The room version is not one this server speaks.
    #[error("room version {0} is not supported here")]
    RoomVersion(String),
    /// The state that a new room is to have is not possible.
    #[error("the room cannot be created like this: {0}")]
    RoomState(String),
    /// The profile would be larger than profiles may be.
    #[error("the profile would be larger than 64 KiB")]
    ProfileTooLarge,
    /// The filter is malformed or too large.
    #[error("the filter is not valid: {0}")]
    Filter(FilterError),
    /// The event is malformed or too large.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The event's content has not the shape that the room's authorisation rules ask for, whoever sends it.
    #[error("{reason} (authorisation rule {rule})")]
    Content {
        /// The rule by its number in the specification.
        rule: &'static str,
        /// Which rule that is; a sentence for a human.
        reason: Reason,
    },
    /// An alias that is to stand for a room does not exist or points elsewhere.
    #[error("the alias {0} does not point to this room")]
    AliasTarget(String),
    /// A thread is to begin at an event that relates to another.
    #[error("a thread cannot begin at an event that relates to another")]
    ThreadRoot,
    /// An access list would shut this server out of its own users' room.
    #[error("the access list denies this server, so that nobody here could take part any more")]
    DeniesThisServer,
    /// A signature is missing or does not verify.
    #[error("{what} has no good signature: {why}")]
    Signature {
        /// What should be signed.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Cross-signing keys need a master key, and there is none.
    #[error("there is no master key, neither in the request nor stored")]
    NoMasterKey,
    /// Something is larger or more than allowed.
    #[error("{what}: more than the limit of {max}")]
    TooLarge {
        /// What, and in which unit it is counted.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The push rules would cost too much to evaluate.
    #[error(transparent)]
    PushRules(#[from] RulesError),
    /// The rule that a push rule is to be placed beside does not exist, or what is asked for cannot be.
    #[error("before/after rule not found: {0}")]
    PushRulePlace(String),
    /// Another server's template for an event is not for what it was asked for.
    #[error("the other server answered with something else than it was asked for: {0}")]
    Template(&'static str),
    /// The position or token is not one this server gave out.
    #[error("this token was not given out by this server")]
    Token,
}

/// What was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum What {
    /// Another server.
    Server,
    /// A room.
    Room,
    /// An event.
    Event,
    /// A state event.
    State,
    /// A user.
    User,
    /// A device.
    Device,
    /// A room alias.
    Alias,
    /// An access or refresh token.
    Token,
    /// Account data.
    AccountData,
    /// A filter.
    Filter,
    /// A profile field.
    ProfileField,
    /// A push rule.
    PushRule,
    /// A device's or cross-signing key.
    Key,
    /// A key backup version, room or session.
    KeyBackup,
    /// A media file.
    Media,
    /// A tag.
    Tag,
    /// A purge.
    Purge,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Room => "room",
            Self::Event => "event",
            Self::State => "state event",
            Self::User => "user",
            Self::Device => "device",
            Self::Alias => "room alias",
            Self::Token => "token",
            Self::AccountData => "account data",
            Self::Filter => "filter",
            Self::ProfileField => "profile field",
            Self::PushRule => "push rule",
            Self::Key => "key",
            Self::KeyBackup => "key backup",
            Self::Media => "media",
            Self::Tag => "tag",
            Self::Purge => "purge",
        })
    }
}

/// What stands in the way.
#[derive(Clone, Debug, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum Conflict {
    /// The user name is taken.
    #[error("this user name is taken")]
    UserInUse,
    /// The alias points to another room.
    #[error("this room alias is taken")]
    AliasInUse,
    /// The key backup version is not the current one.
    #[error("this is not the current key backup version, which is {current}")]
    BackupVersion {
        /// The current version.
        current: String,
    },
    /// The user has not left the room.
    #[error("you are in this room and have to leave it first")]
    StillInRoom,
    /// The sender has annotated the event with this key already.
    #[error("you have reacted to this event in this way already")]
    DuplicateAnnotation,
    /// The media id has its content.
    #[error("something has been uploaded to this media id already")]
    MediaExists,
    /// The same key id was uploaded with another key.
    #[error("a key with this id exists and is different")]
    KeyExists,
    /// Something of the room is being removed.
    #[error("this room is being purged")]
    PurgeRunning,
    /// Users of this server are in the room.
    #[error("users of this server are in the room")]
    LocalMembers,
    /// The user's invite waits for their answer.
    #[error("this user is invited already")]
    AlreadyInvited,
    /// Not all members of the room are known yet.
    #[error("the members of this room are still being asked for")]
    PartialState,
}

/// What the engine lacks, and whoever drives it can fetch. Each is named once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Events that others follow: to be given with them, or passed by with the state that they lead to.
    pub prev_events: Vec<Arc<str>>,
    /// Events that allow others, or are part of a state that was given: to be given as outliers.
    pub auth_events: Vec<Arc<str>>,
    /// Events before which the state would let them in without what they follow.
    pub state: Vec<Arc<str>>,
    /// Events that the state denies which others than their senders' servers told before them, and that those allow which they name:
    /// another server may tell another state.
    pub other_state: Vec<Arc<str>>,
    /// Events that the room's policy server has not signed: to be given with its signature, or as refused by it.
    pub signatures: Vec<WantedSignature>,
}

impl Missing {
    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        self.prev_events.is_empty()
            && self.auth_events.is_empty()
            && self.state.is_empty()
            && self.other_state.is_empty()
            && self.signatures.is_empty()
    }

    /// Names each once, and not what was given: `events` that are to be part of the room, and `outliers`, which are enough for
    /// what they allow and not for what follows them.
    pub(crate) fn settle(&mut self, events: impl Fn(&str) -> bool, outliers: impl Fn(&str) -> bool) {
        for list in [&mut self.prev_events, &mut self.auth_events, &mut self.state, &mut self.other_state] {
            list.sort_unstable();
            list.dedup();
        }
        self.prev_events.retain(|event_id| !events(event_id));
        self.auth_events.retain(|event_id| !events(event_id) && !outliers(event_id));
    }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
