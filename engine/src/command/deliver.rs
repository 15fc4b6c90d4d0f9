//! How deliveries to a server fare: it could not be reached, this server does not deal with it, it was heard from, an
//! administrator wants it tried at once.

use crate::{
    command::{Command, Lanes},
    core::num::{StreamPos, TextNum},
    error::{Error, Result, What},
    outbox::{self, Failure, OUTAGE_WAIT_MS_MAX, WAIT_MS_MAX, trimming},
    store::{StorageError, Tx, schema, schema::Destination},
};

/// A transaction did not reach the server, or it could not take it.
pub struct DeliveryFailed {
    /// The server.
    pub destination: String,
    /// For how long it asked to be left alone, in milliseconds; it is for a day at most.
    pub retry_after_ms: u64,
    /// Whether it is its limit on requests that says so. Anything else counts for some minutes at most, and not
    /// when it is heard from.
    pub is_rate_limit: bool,
}

impl Command for DeliveryFailed {
    /// When it is to be tried again, in milliseconds since the epoch.
    type Output = u64;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.destination)
    }

    fn run(&self, tx: &mut Tx) -> Result<u64> {
        let server = tx.intern_text(&self.destination)?;
        let mut row = outbox::destination(tx, server)?;
        let now_ms = tx.shared.clock.now_ms();
        if row.failing_since_ms == 0 {
            row.failing_since_ms = now_ms;
        }
        row.failures = row.failures.saturating_add(1);
        row.failed_ms = now_ms;
        let most_ms = if self.is_rate_limit { WAIT_MS_MAX } else { OUTAGE_WAIT_MS_MAX };
        let retry_after_ms = self.retry_after_ms.min(most_ms);
        row.retry_ms = now_ms + outbox::wait_ms(tx, row.failures).max(retry_after_ms);
        row.asked_ms = if self.is_rate_limit { now_ms + retry_after_ms } else { 0 };
        row.retry_ms = tx.shared.outbox.failed(server, Failure::of(&row), row.retry_ms, now_ms);
        tx.put(&schema::DESTINATIONS, &server, &row);
        keep_short(tx, server, &row)?;
        Ok(row.retry_ms)
    }
}

/// What waits for a server takes no more than it must.
fn keep_short(tx: &mut Tx, server: TextNum, row: &Destination) -> Result<(), StorageError> {
    outbox::count_long(tx, server, row.messages_waiting)?;
    let in_flight = row.in_flight.as_ref().map(|sent| &*sent.edus).unwrap_or_default();
    trimming::trim(tx, server, in_flight)
}

/// This server does not deal with the server: nothing is sent to it, and nothing has failed. What is for it waits as for one that
/// cannot be reached, and when it is dealt with again it catches up like that one.
pub struct DeliveryShelved {
    /// The server.
    pub destination: String,
}

impl Command for DeliveryShelved {
    /// When it is to be looked at again, in milliseconds since the epoch.
    type Output = u64;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.destination)
    }

    fn run(&self, tx: &mut Tx) -> Result<u64> {
        let server = tx.intern_text(&self.destination)?;
        let mut row = outbox::destination(tx, server)?;
        let now_ms = tx.shared.clock.now_ms();
        if row.failing_since_ms == 0 || row.failures > 0 {
            row.failing_since_ms = if row.failing_since_ms == 0 { now_ms } else { row.failing_since_ms };
            // What had failed before is no matter of pauses any more, and is not past when these would be over.
            row.failures = 0;
            tx.put(&schema::DESTINATIONS, &server, &row);
        }
        let due_ms = now_ms + WAIT_MS_MAX;
        tx.shared.outbox.failed(server, Failure::shelved(&row), due_ms, now_ms);
        keep_short(tx, server, &row)?;
        Ok(due_ms)
    }
}

/// The server was heard from: if it could not be reached, it is worth another attempt at once, unless a sign of life was so a moment
/// ago, or it asked to be left alone until later. If nothing is left for it, this is all that shows that it is back. To be run when
/// the view `MayBeBack` says so.
pub struct HeardFromServer {
    /// The server.
    pub destination: String,
}

impl Command for HeardFromServer {
    /// When it may be tried, in milliseconds since the epoch, if that is sooner than before.
    type Output = Option<u64>;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.destination)
    }

    fn run(&self, tx: &mut Tx) -> Result<Option<u64>> {
        let Some(server) = tx.text_num(&self.destination)? else { return Ok(None) };
        let mut row = outbox::destination(tx, server)?;
        let now_ms = tx.shared.clock.now_ms();
        let retry_ms = tx.shared.outbox.heard(server, Failure::of(&row), row.retry_ms, now_ms);
        if retry_ms <= now_ms && tx.shared.outbox.is_in_doubt(server) {
            begin_anew(tx, server, row);
            return Ok(Some(now_ms));
        }
        if retry_ms == row.retry_ms {
            return Ok(None);
        }
        row.retry_ms = retry_ms;
        tx.put(&schema::DESTINATIONS, &server, &row);
        Ok(Some(retry_ms))
    }
}

/// An administrator wants the server to be tried at once, and with short pauses again if it fails. It is not forgotten since when it
/// cannot be reached, or a server that was silent for long would be sent all that it missed, for hours, where it could catch up.
pub struct ResetDestination {
    /// The server.
    pub destination: String,
}

impl Command for ResetDestination {
    /// Whether it was left alone until now, or counted as failing.
    ///
    /// Errors: [`What::Server`] not found, if nothing was ever for it.
    type Output = bool;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.destination)
    }

    fn run(&self, tx: &mut Tx) -> Result<bool> {
        let not_found = || Error::NotFound(What::Server);
        let server = tx.text_num(&self.destination)?.ok_or_else(not_found)?;
        if !outbox::is_known(tx, server)? {
            return Err(not_found());
        }
        let row = outbox::destination(tx, server)?;
        let was_failing = row.failures > 0 || row.retry_ms > tx.shared.clock.now_ms();
        if was_failing {
            begin_anew(tx, server, row);
        }
        Ok(was_failing)
    }
}

/// The server does not count as failing any more, and is looked at even if nothing is for it: whether it has missed anything is seen
/// then.
fn begin_anew(tx: &mut Tx, server: TextNum, mut row: Destination) {
    (row.failures, row.retry_ms, row.asked_ms) = (0, 0, 0);
    tx.put(&schema::DESTINATIONS, &server, &row);
    tx.shared.outbox.add_queued(server, StreamPos(1));
}
