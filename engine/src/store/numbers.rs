//! The transaction's side of interning: numbers for names, made when they are new.

use super::{InternedKind, StorageError, Tx};
use crate::core::num::{RoomNum, TextNum, UserNum};

impl Tx {
    /// Looks for users and texts that are about to be interned, all at once.
    pub(crate) fn look_for_names<'a>(
        &mut self,
        users: impl Iterator<Item = &'a str>,
        texts: impl Iterator<Item = &'a str>,
    ) -> Result<(), StorageError> {
        let users = users.map(|name| (InternedKind::User, name));
        let texts = texts.map(|name| (InternedKind::Text, name));
        let shared = self.shared.clone();
        shared.interner.look_for(self, users.chain(texts))
    }

    /// The number of a room, new if it has none.
    pub fn intern_room(&mut self, room_id: &str) -> Result<RoomNum, StorageError> {
        let shared = self.shared.clone();
        Ok(RoomNum(shared.interner.intern(self, InternedKind::Room, room_id)?))
    }

    /// The number of a user, new if they have none.
    pub fn intern_user(&mut self, user_id: &str) -> Result<UserNum, StorageError> {
        let shared = self.shared.clone();
        Ok(UserNum(shared.interner.intern(self, InternedKind::User, user_id)?))
    }

    /// The number of a text, new if it has none.
    ///
    /// Errors: [`StorageError::TooLarge`] after four thousand million texts.
    pub fn intern_text(&mut self, text: &str) -> Result<TextNum, StorageError> {
        let shared = self.shared.clone();
        let num = shared.interner.intern(self, InternedKind::Text, text)?;
        u32::try_from(num).map(TextNum).map_err(|_| StorageError::TooLarge)
    }
}
