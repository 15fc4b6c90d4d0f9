//! Accounts: users, devices, sessions, profiles, account data, filters. Ids 60 to 89.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keyspaces;
use crate::{
    core::num::{RoomNum, StreamPos, UserNum},
    store::{Positioned, record},
};

/// The SHA-256 of a token: what is stored of it, so that nobody who reads the disk can use it.
pub type TokenHash = [u8; 32];

keyspaces! { TABLE:
    #[doc = "The accounts of this server."]
    60 ACCOUNTS: Users, UserNum => Account;
    #[doc = "A user's devices, with the tokens of each."]
    61 DEVICES: Users, (UserNum, String) => DeviceRow;
    #[doc = "When and from where a device was last seen; written seldom."]
    62 DEVICE_SIGHTINGS: Users, (UserNum, String) => Sighting;
    #[doc = "The device behind an access token."]
    63 ACCESS_TOKENS: Users, TokenHash => AccessTokenRow;
    #[doc = "The device behind a refresh token."]
    64 REFRESH_TOKENS: Users, TokenHash => RefreshTokenRow;
    #[doc = "Tokens that let somebody register."]
    65 REGISTRATION_TOKENS: Users, String => RegistrationToken;
    #[doc = "Short-lived tokens for one purpose (see TokenPurpose): logging in, proving who one is to others."]
    66 PASSING_TOKENS: Users, (u8, TokenHash) => PassingTokenRow;
    #[doc = "The fields of a user's profile as JSON."]
    67 PROFILE_FIELDS: Users, (UserNum, String) => Bytes;
    #[doc = "Account data by room (zero for what is not of a room) and type: the content as JSON, behind its position."]
    68 ACCOUNT_DATA: Users, (UserNum, RoomNum, String) => Positioned<Bytes>;
    #[doc = "A user's filters by id, as JSON."]
    69 FILTERS: Users, (UserNum, String) => Bytes;
    #[doc = "The last position at the beginning of an hour, counted from the epoch: old rows are known by their positions."]
    70 TIME_MARKS: Users, u64 => StreamPos;
    #[doc = "Users of this server who asked that what they sent be forgotten, with the position at which they did."]
    71 ERASURES: Users, UserNum => StreamPos;
    #[doc = "Users whose accounts are closed, and whose rooms are still to be left."]
    72 DEACTIVATIONS: Users, UserNum => ();
}

/// An account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The password's hash in the PHC format; `None` if no password opens the account.
    pub password_hash: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Made without any proof, for looking around.
    pub is_guest: bool,
    /// May administer the server.
    pub is_admin: bool,
    /// Closed for ever; the name stays taken.
    pub is_deactivated: bool,
    /// The user asked that others who join rooms later do not get what was sent; `ERASURES` says when.
    pub is_erased: bool,
    /// Nothing but logging out is possible for now.
    pub is_locked: bool,
    /// The user can read, but hardly write.
    pub is_suspended: bool,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// What the user calls it.
    pub display_name: Option<String>,
    /// When it first logged in, in milliseconds since the epoch.
    pub created_ms: u64,
    /// The tokens in use.
    pub tokens: Option<TokenPair>,
    /// The tokens that a refresh gave out and that have not been used yet; until then the older ones stay good, as the
    /// answer may have been lost.
    pub next_tokens: Option<TokenPair>,
}

/// The hashes of an access token and the refresh token that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPair {
    /// The access token's.
    pub access: TokenHash,
    /// The refresh token's, if the client asked for one.
    pub refresh: Option<TokenHash>,
}

/// When a device was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Milliseconds since the epoch.
    pub ts: u64,
    /// The address that it came from.
    pub ip: Option<String>,
}

/// Whose an access token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRow {
    /// The user.
    pub user: UserNum,
    /// The device.
    pub device_id: String,
    /// When it ends, in milliseconds since the epoch; `None` for never.
    pub expires_ms: Option<u64>,
}

/// Whose a refresh token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenRow {
    /// The user.
    pub user: UserNum,
    /// The device.
    pub device_id: String,
}

/// A token that lets somebody register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How many registrations it still allows; `None` for any number.
    pub uses_left: Option<u64>,
    /// When it ends, in milliseconds since the epoch; `None` for never.
    pub expires_ms: Option<u64>,
    /// The token of the first start: who registers with it administers the server, and any other account ends it.
    pub is_first: bool,
}

/// A short-lived token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassingTokenRow {
    /// Whose it is.
    pub user: UserNum,
    /// When it ends, in milliseconds since the epoch.
    pub expires_ms: u64,
}

record!(Account, DeviceRow, Sighting, AccessTokenRow, RefreshTokenRow, RegistrationToken, PassingTokenRow);
