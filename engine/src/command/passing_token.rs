//! Short-lived tokens are made, and spent.

use crate::{
    account::{passing_tokens, passing_tokens::TokenPurpose, users},
    command::{Command, Lanes},
    error::{Error, Result, What},
    store::Tx,
};

/// Makes a short-lived token.
///
/// Errors: [`What::User`] not found, [`Denied::Deactivated`](crate::Denied::Deactivated).
pub struct MakePassingToken {
    /// Whose it is to be.
    pub user_id: String,
    /// What it is for.
    pub purpose: TokenPurpose,
    /// How long it is good, in milliseconds.
    pub life_ms: u64,
}

impl Command for MakePassingToken {
    /// The token.
    type Output = String;

    fn lanes(&self) -> Lanes {
        // It only writes a row of its own, and removes expired ones, which nobody can use.
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let (user, _) = users::active(tx, &self.user_id)?;
        Ok(passing_tokens::make(tx, self.purpose, user, self.life_ms)?)
    }
}

/// Uses up a short-lived token that is good for one use.
///
/// Errors: [`What::Token`] not found, also if it has expired.
pub struct SpendPassingToken {
    /// What it has to be for.
    pub purpose: TokenPurpose,
    /// The token.
    pub token: String,
}

impl Command for SpendPassingToken {
    /// The id of the user whose it was.
    type Output = String;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.token)
    }

    fn run(&self, tx: &mut Tx) -> Result<String> {
        let now_ms = tx.shared.clock.now_ms();
        let owner = passing_tokens::owner(tx, self.purpose, &self.token, now_ms)?;
        let user = owner.ok_or(Error::NotFound(What::Token))?;
        passing_tokens::end(tx, self.purpose, &self.token);
        Ok(tx.user_id(user)?.to_string())
    }
}
