//! A command whose events need the signatures of policy servers, which have been asked for some of them.

use std::sync::Arc;

use crate::{
    command::{Command, Lanes},
    core::event::Pdu,
    error::Result,
    store::Tx,
};

/// Another attempt at a command that ended with [`crate::Error::Unsigned`]. Where it would build one of the events anew, that
/// event is taken as it is, because the signature is for that one alone.
pub struct WithSigned<'a, C> {
    /// The command, the same each time.
    pub command: &'a C,
    /// What was signed so far ([`crate::UnsignedEvent::signed`]).
    pub signed: &'a [Arc<Pdu>],
}

impl<C: Command> Command for WithSigned<'_, C> {
    type Output = C::Output;

    fn lanes(&self) -> Lanes {
        self.command.lanes()
    }

    fn run(&self, tx: &mut Tx) -> Result<C::Output> {
        tx.signed = self.signed.to_vec();
        self.command.run(tx)
    }
}
