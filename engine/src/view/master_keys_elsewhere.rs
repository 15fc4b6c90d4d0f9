//! Master keys of users of other servers that users of this one sign: which of them are to be asked for, and how they are shown
//! to who has signed them.
//!
//! Specification: `POST /keys/signatures/upload`, `POST /keys/query`.

use bytes::Bytes;
use serde_json::Value;

use crate::{
    core::event::JsonObject,
    device::{
        cross_signing::{self, CrossSigningUsage},
        elsewhere::{self, ToldMasterKey},
        signatures,
    },
    error::Result,
    store::Reader,
    view::View,
};

/// Master keys that are asked for because of one request: a client signs one at a time, as its user verifies people, and
/// signs all anew when the user's own keys are.
const ASKED_MAX: usize = 100;

/// Master keys of users of other servers that are not known here, among keys with signatures of `signer` on them that would
/// hold. Their servers are to be asked; what they tell goes into [`crate::command::UploadSignatures`].
pub struct UnknownMasterKeys<'a> {
    /// Who signs.
    pub signer: &'a str,
    /// The signed keys, with whose they are.
    pub signed: Vec<(&'a str, &'a JsonObject)>,
}

/// Whose master key is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMasterKey {
    /// The user.
    pub user_id: String,
    /// What is stored as their master key.
    known: Option<Bytes>,
}

impl UnknownMasterKey {
    /// The key, as the user's server has told it.
    pub fn told(self, object: JsonObject) -> ToldMasterKey {
        ToldMasterKey { user_id: self.user_id, known: self.known, object }
    }
}

impl View for UnknownMasterKeys<'_> {
    type Output = Vec<UnknownMasterKey>;

    fn read(&self, reader: &Reader) -> Result<Vec<UnknownMasterKey>> {
        let mut unknown: Vec<UnknownMasterKey> = Vec::new();
        let Some(signer) = reader.user_num(self.signer)? else { return Ok(unknown) };
        for (user_id, object) in &self.signed {
            let is_there = unknown.iter().any(|key| key.user_id == **user_id);
            if is_there || unknown.len() >= ASKED_MAX || !elsewhere::is_elsewhere(reader, user_id) {
                continue;
            }
            let owner = reader.user_num(user_id)?;
            let known = match owner {
                None => None,
                // Another key than what is known then is one that the user has no more.
                Some(owner) if elsewhere::is_followed(reader, owner)? => continue,
                Some(owner) if cross_signing::is_stored_master(reader, owner, object)? => continue,
                Some(owner) => cross_signing::stored(reader, owner, CrossSigningUsage::Master)?,
            };
            // Nobody is asked for the sake of what would be refused.
            if cross_signing::is_user_signed(reader, (signer, self.signer), object)? {
                unknown.push(UnknownMasterKey { user_id: (*user_id).to_owned(), known });
            }
        }
        Ok(unknown)
    }
}

/// A master key of a user of another server as that one tells it, with what the asker has signed of it, which only this server
/// knows.
pub struct WithOwnSignatures<'a> {
    /// Who asks.
    pub asker: &'a str,
    /// Whose key it is.
    pub user_id: &'a str,
    /// The key.
    pub key: &'a JsonObject,
}

impl View for WithOwnSignatures<'_> {
    /// The key; `None` if the asker has signed none of the user's, or another.
    type Output = Option<JsonObject>;

    fn read(&self, reader: &Reader) -> Result<Option<JsonObject>> {
        let (asker, owner) = (reader.user_num(self.asker)?, reader.user_num(self.user_id)?);
        let (Some(asker), Some(owner)) = (asker, owner) else { return Ok(None) };
        if !cross_signing::is_stored_master(reader, owner, self.key)? {
            return Ok(None);
        }
        let public = cross_signing::stored_public_key(reader, owner, CrossSigningUsage::Master)?;
        let text = public.map(|public| reader.text_num(&public)).transpose()?.flatten();
        let Some(text) = text else { return Ok(None) };
        let own = signatures::of(reader, owner, asker, text)?;
        if own.is_empty() {
            return Ok(None);
        }
        let mut key = self.key.clone();
        let mut all = match key.remove("signatures") {
            Some(Value::Object(all)) => all,
            _ => JsonObject::new(),
        };
        let own: JsonObject = own.into_iter().map(|(key_id, signature)| (key_id, signature.into())).collect();
        all.insert(self.asker.to_owned(), own.into());
        key.insert("signatures".to_owned(), all.into());
        Ok(Some(key))
    }
}
