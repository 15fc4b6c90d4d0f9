//! What a refused request is answered with: the specification's "standard error response".
//!
//! Every error code of the server is one row of the table below, with its usual status; error codes exist nowhere
//! else. The sentence is written for the developer who reads it in a client's log.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Map, Value};
use warren_engine::core::event::EventError;
use warren_engine::{Conflict, Denied, Error, Invalid, StorageError};

use super::request_id;

/// Why an invite by an address is refused that would come after another: nobody who asks for one need be told.
pub const ALREADY_INVITED: &str = "already_invited";

/// A refused request: status, error code, sentence, and what some codes carry beside them.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    pub errcode: &'static str,
    pub error: Cow<'static, str>,
    /// Why, as it is counted where other servers are refused: the code, or a word where that says too little.
    pub reason: &'static str,
    /// Further members of the response object, `retry_after_ms` or `soft_logout` for instance.
    pub extra: Option<Box<Map<String, Value>>>,
}

impl ApiError {
    /// An error with a status of its own choosing, for the few answers whose status differs from the table's.
    pub fn new(status: StatusCode, errcode: &'static str, error: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { status, errcode, error: error.into(), reason: errcode, extra: None }
    }

    /// The same error under another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> ApiError {
        self.status = status;
        self
    }

    /// The same error, counted with another reason than its code.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> ApiError {
        self.reason = reason;
        self
    }

    /// Adds a member to the response object.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> ApiError {
        self.extra.get_or_insert_default().insert(key.to_owned(), value.into());
        self
    }

    /// 429 with the time after which the request may be sent again, also as `Retry-After` (section "Rate limiting").
    pub fn limit_exceeded(retry_after_ms: u64) -> ApiError {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "M_LIMIT_EXCEEDED",
            "Too many requests of this kind; wait and send it again",
        )
        .with("retry_after_ms", retry_after_ms)
    }

    /// An error in the words of another server, whatever its code.
    pub fn verbatim(status: StatusCode, errcode: &str, error: String) -> ApiError {
        let known = Self::of_peer(status, errcode, error);
        if known.errcode == errcode { known } else { known.with("errcode", errcode) }
    }

    /// 401 for a session that may come back by a new login that keeps its device (section "Soft logout").
    pub fn soft_logout(error: impl Into<Cow<'static, str>>) -> ApiError {
        Self::unknown_token(error).with("soft_logout", true)
    }

    /// 401 for a locked account (section "Account locking").
    pub fn user_locked() -> ApiError {
        Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "This account has been locked")
            .with("soft_logout", true)
    }

    /// A fault of ours. `cause` goes to the log, not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> ApiError {
        tracing::error!(id = request_id::current(), %cause, "a request failed inside the server");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The server failed to handle this request")
    }

    /// 503 for a disk that is full or fails: the request is not acknowledged, and may be sent again (with the same
    /// transaction id) when there is room. `cause` goes to the log, not to the client.
    pub fn storage_failed(cause: impl std::fmt::Display) -> ApiError {
        tracing::error!(id = request_id::current(), %cause, "a request failed at the store");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "M_UNKNOWN",
            "The server's storage is full or failing and the request is not acknowledged; try again later",
        )
    }

    /// `retry_after_ms` of this error, if it carries one.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.extra.as_ref()?.get("retry_after_ms")?.as_u64()
    }

    /// The response body.
    pub fn body(&self) -> Vec<u8> {
        let mut object = self.extra.as_deref().cloned().unwrap_or_default();
        object.entry("errcode").or_insert_with(|| self.errcode.into());
        object.insert("error".to_owned(), self.error.as_ref().into());
        Value::Object(object).to_string().into_bytes()
    }
}

/// What is not allowed, as a Matrix error.
fn refused(denied: Denied, sentence: String) -> ApiError {
    match denied {
        Denied::Deactivated => ApiError::user_deactivated(sentence),
        Denied::RegistrationToken => ApiError::unauthorized(sentence),
        Denied::CredentialsChanged | Denied::NotThisGuest => ApiError::forbidden(sentence),
        Denied::Reserved => ApiError::exclusive(sentence),
        Denied::PendingMedia { retry_after_ms } => ApiError::limit_exceeded(retry_after_ms),
        Denied::Unreachable => ApiError::not_found(sentence),
        Denied::InvitesBlocked => ApiError::invite_blocked(sentence),
        Denied::NotBanned => ApiError::bad_state(sentence),
        Denied::GuestAccess => ApiError::guest_access_forbidden(sentence),
        Denied::UnableToAuthoriseJoin => ApiError::unable_to_authorise_join(sentence),
        Denied::UnableToGrantJoin => ApiError::unable_to_grant_join(sentence),
        Denied::IncompatibleRoomVersion(version) => {
            ApiError::incompatible_room_version(sentence).with("room_version", version)
        }
        Denied::Rule { rule, .. } => ApiError::forbidden(sentence).because(rule),
        Denied::TooManyInvites => ApiError::forbidden(sentence).because("too_many_invites"),
        Denied::ServerAcl => ApiError::forbidden(sentence).because("server_acl"),
        Denied::NotInRoom => ApiError::forbidden(sentence).because("not_in_room"),
        Denied::OtherServer => ApiError::forbidden(sentence).because("other_server"),
        Denied::JoinConditions => ApiError::forbidden(sentence).because("join_conditions"),
        Denied::NotYours => ApiError::forbidden(sentence).because("not_yours"),
        Denied::TargetNotInRoom
        | Denied::TargetInRoom
        | Denied::HiddenState
        | Denied::PowerLevel
        | Denied::Unredactable
        | Denied::RoomVersion
        | Denied::KeyIdInUse => ApiError::forbidden(sentence),
    }
}

/// The one place where the engine's errors become Matrix errors.
impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let sentence = error.to_string();
        match error {
            Error::Denied(denied) => refused(denied, sentence),
            Error::Invalid(invalid) => match invalid {
                Invalid::Identifier { .. } | Invalid::Parameter { .. } | Invalid::Token => {
                    ApiError::invalid_param(sentence)
                }
                Invalid::ProfileTooLarge => ApiError::profile_too_large(sentence),
                Invalid::Filter(_) => ApiError::bad_json(sentence),
                Invalid::UserName(_) => ApiError::invalid_username(sentence),
                Invalid::Signature { .. } => ApiError::invalid_signature(sentence),
                Invalid::NoMasterKey => ApiError::missing_param(sentence),
                Invalid::TooLarge { .. } => ApiError::too_large(sentence),
                Invalid::Template(_) => ApiError::unknown(sentence).with_status(StatusCode::BAD_GATEWAY),
                // As the specification's example and its note on threads have it.
                Invalid::PushRulePlace(_) | Invalid::ThreadRoot => ApiError::unknown(sentence),
                Invalid::PushRules(_) => ApiError::invalid_param(sentence),
                Invalid::RoomVersion(_) => ApiError::unsupported_room_version(sentence),
                Invalid::RoomState(_) => ApiError::invalid_room_state(sentence),
                Invalid::AliasTarget(_) => ApiError::bad_alias(sentence),
                Invalid::Event(EventError::TooLarge { .. }) => ApiError::too_large(sentence),
                Invalid::Event(_) | Invalid::Content { .. } | Invalid::DeniesThisServer => {
                    ApiError::bad_json(sentence)
                }
            },
            Error::NotFound(_) => ApiError::not_found(sentence),
            Error::Conflict(conflict) => match conflict {
                Conflict::UserInUse => ApiError::user_in_use(sentence),
                Conflict::AliasInUse => ApiError::room_in_use(sentence),
                Conflict::BackupVersion { current } => {
                    ApiError::wrong_room_keys_version(sentence).with("current_version", current)
                }
                Conflict::StillInRoom | Conflict::PurgeRunning | Conflict::LocalMembers => {
                    ApiError::unknown(sentence)
                }
                // It passes by itself.
                Conflict::PartialState => {
                    ApiError::unknown(sentence).with_status(StatusCode::SERVICE_UNAVAILABLE)
                }
                Conflict::AlreadyInvited => ApiError::bad_state(sentence).because(ALREADY_INVITED),
                Conflict::DuplicateAnnotation => ApiError::duplicate_annotation(sentence),
                Conflict::MediaExists => ApiError::cannot_overwrite_media(sentence),
                Conflict::KeyExists => ApiError::invalid_param(sentence),
            },
            Error::Unsigned(_) => ApiError::forbidden(sentence),
            Error::Storage(error @ (StorageError::Io(_) | StorageError::Abandoned)) => {
                ApiError::storage_failed(error)
            }
            Error::Storage(error) => ApiError::internal(error),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $code:ident $status:ident;)*) => {
        impl ApiError {
            /// An error with a code that came from elsewhere, if it is one of these; else with none that says anything.
            fn of_peer(status: StatusCode, errcode: &str, error: String) -> ApiError {
                let errcode = match errcode {
                    $(stringify!($code) => stringify!($code),)*
                    _ => "M_UNKNOWN",
                };
                // Specification: "usually a sentence explaining what went wrong".
                let error = if error.is_empty() { "The other server gave no reason".to_owned() } else { error };
                ApiError::new(status, errcode, error)
            }

            $($(#[$doc])*
            pub fn $name(error: impl Into<Cow<'static, str>>) -> ApiError {
                ApiError::new(StatusCode::$status, stringify!($code), error)
            })*
        }
    };
}

codes! {
    /// The sender may not do this; sending it again will not help.
    forbidden                     M_FORBIDDEN                       FORBIDDEN;
    /// The access token was not known.
    unknown_token                 M_UNKNOWN_TOKEN                   UNAUTHORIZED;
    /// No access token was given.
    missing_token                 M_MISSING_TOKEN                   UNAUTHORIZED;
    /// The request was not authenticated in the way that the endpoint needs.
    unauthorized                  M_UNAUTHORIZED                    UNAUTHORIZED;
    /// JSON of the wrong shape: a member is missing or has the wrong type.
    bad_json                      M_BAD_JSON                        BAD_REQUEST;
    /// Not JSON at all.
    not_json                      M_NOT_JSON                        BAD_REQUEST;
    /// What is asked for does not exist, or may not be seen.
    not_found                     M_NOT_FOUND                       NOT_FOUND;
    /// No such endpoint.
    unrecognized                  M_UNRECOGNIZED                    NOT_FOUND;
    /// The endpoint exists, with another method.
    wrong_method                  M_UNRECOGNIZED                    METHOD_NOT_ALLOWED;
    /// Something went wrong that no other code names.
    unknown                       M_UNKNOWN                         BAD_REQUEST;
    /// The account is deactivated.
    user_deactivated              M_USER_DEACTIVATED                FORBIDDEN;
    /// The account is suspended and may not do this.
    user_suspended                M_USER_SUSPENDED                  FORBIDDEN;
    /// The user name is taken.
    user_in_use                   M_USER_IN_USE                     BAD_REQUEST;
    /// The user name is not a valid one.
    invalid_username              M_INVALID_USERNAME                BAD_REQUEST;
    /// The room alias is taken.
    room_in_use                   M_ROOM_IN_USE                     BAD_REQUEST;
    /// The initial state of a room to create is not allowed.
    invalid_room_state            M_INVALID_ROOM_STATE              BAD_REQUEST;
    /// Third-party identifiers of this kind or address are not accepted.
    threepid_denied               M_THREEPID_DENIED                 FORBIDDEN;
    /// The room version is not one that this server can create.
    unsupported_room_version      M_UNSUPPORTED_ROOM_VERSION        BAD_REQUEST;
    /// The asking server does not speak the room's version.
    incompatible_room_version     M_INCOMPATIBLE_ROOM_VERSION       BAD_REQUEST;
    /// This server cannot tell whether the user may come in.
    unable_to_authorise_join      M_UNABLE_TO_AUTHORISE_JOIN        BAD_REQUEST;
    /// The user may come in, but this server cannot vouch for it.
    unable_to_grant_join          M_UNABLE_TO_GRANT_JOIN            BAD_REQUEST;
    /// The state change is not possible, such as unbanning who is not banned.
    bad_state                     M_BAD_STATE                       FORBIDDEN;
    /// The user wants no invites.
    invite_blocked                M_INVITE_BLOCKED                  FORBIDDEN;
    /// The room does not admit guests.
    guest_access_forbidden        M_GUEST_ACCESS_FORBIDDEN          FORBIDDEN;
    /// A required parameter is missing.
    missing_param                 M_MISSING_PARAM                   BAD_REQUEST;
    /// A parameter has the wrong value.
    invalid_param                 M_INVALID_PARAM                   BAD_REQUEST;
    /// The request or what it would make is too large.
    too_large                     M_TOO_LARGE                       PAYLOAD_TOO_LARGE;
    /// The resource is reserved by an application service.
    exclusive                     M_EXCLUSIVE                       BAD_REQUEST;
    /// The password is too weak.
    weak_password                 M_WEAK_PASSWORD                   BAD_REQUEST;
    /// The key backup version is not the current one.
    wrong_room_keys_version       M_WRONG_ROOM_KEYS_VERSION         FORBIDDEN;
    /// A signature does not verify.
    invalid_signature             M_INVALID_SIGNATURE               BAD_REQUEST;
    /// The alias does not point to the room.
    bad_alias                     M_BAD_ALIAS                       BAD_REQUEST;
    /// The user has annotated this event with this key already.
    duplicate_annotation          M_DUPLICATE_ANNOTATION            BAD_REQUEST;
    /// The media has not been uploaded yet.
    not_yet_uploaded              M_NOT_YET_UPLOADED                GATEWAY_TIMEOUT;
    /// Media may be uploaded to an id once only.
    cannot_overwrite_media        M_CANNOT_OVERWRITE_MEDIA          CONFLICT;
    /// The device is not one of the user's.
    unknown_device                M_UNKNOWN_DEVICE                  BAD_REQUEST;
    /// The profile would be too large.
    profile_too_large             M_PROFILE_TOO_LARGE               BAD_REQUEST;
    /// The name of a profile field is too long.
    key_too_large                 M_KEY_TOO_LARGE                   BAD_REQUEST;
}
