//! What a server is to be sent next, once it has acknowledged what it was sent last.
//!
//! Invariant: a transaction is in the store before it goes out. Until it is acknowledged, the same is answered again.
//! Specification: server-server API, "Transactions".

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    core::{
        json::splice::{item, member, number_member, string_member},
        num::{EventNum, RoomNum, StreamPos, TextNum, UserNum},
    },
    device::updates,
    error::Result,
    outbox::{
        self,
        delivery::{self, EDUS_MAX, EVENTS_MAX, MESSAGES_BYTES_MAX, OWN_EVENTS_MAX},
        making_up, shares, trimming,
    },
    remote::edu,
    room::company::Company,
    store::{
        Direction, Positioned, Reader, Tx, schema,
        schema::{Destination, InFlight, OutgoingEdu},
    },
};

/// How old it may be, in milliseconds, what is noted of a server that takes nothing but receipts: what it took since then it is told
/// again after an end of this server. Noting it each time would be a write for each receipt and server.
const NOTED_EVERY_MS: u64 = 10 * 60 * 1000;
/// The random part of a transaction's id: 96 bits.
const ID_CHARS: usize = 16;

/// The next transaction for a server. To be asked by one at a time for each server.
pub struct NextTransaction {
    /// The server.
    pub destination: String,
    /// The id of the transaction that it has taken.
    pub acknowledged: Option<String>,
    /// Whether it has taken one that is not kept, so that no id stands for it: typing and receipts alone.
    pub took_brief: bool,
    /// Whether the next is begun. Else only what it has taken is noted, and nothing is answered to be sent: what is begun and not
    /// sent at once has to be taken for sent.
    pub begins: bool,
}

/// What is next.
#[derive(Clone, Debug, Default)]
pub struct NextUp {
    /// What the server is to be sent; `None` if nothing waits that must not be lost.
    pub transaction: Option<Transaction>,
    /// Whether the same may have been sent before, under the same id.
    pub is_repeated: bool,
    /// Up to here the server has everything.
    pub delivered_to: StreamPos,
}

/// What a server is to be sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its id, the same whenever it is sent again.
    pub id: String,
    /// When it was begun, in milliseconds since the epoch.
    pub origin_server_ts: u64,
    /// Events in JSON.
    pub pdus: Vec<Bytes>,
    /// Other parts in JSON; more may be added before it is first sent, up to [`Transaction::EDUS_MAX`].
    pub edus: Vec<Bytes>,
}

impl Transaction {
    /// How many other parts than events it may have.
    pub const EDUS_MAX: usize = EDUS_MAX;

    /// Its body. `origin` is this server's name.
    pub fn body(&self, origin: &str) -> Bytes {
        let mut out = vec![b'{'];
        for (name, parts) in [("edus", &self.edus), ("pdus", &self.pdus)] {
            member(&mut out, name);
            out.push(b'[');
            for part in parts {
                item(&mut out);
                out.extend_from_slice(part);
            }
            out.push(b']');
        }
        string_member(&mut out, "origin", origin);
        number_member(&mut out, "origin_server_ts", self.origin_server_ts);
        out.push(b'}');
        out.into()
    }
}

impl Command for NextTransaction {
    type Output = NextUp;

    fn lanes(&self) -> Lanes {
        Lanes::default().name(&self.destination)
    }

    fn run(&self, tx: &mut Tx) -> Result<NextUp> {
        // First, so that whatever comes meanwhile is left for the next look.
        let known_to = tx.shared.outbox.dispatched_to();
        let Some(server) = tx.text_num(&self.destination)? else { return Ok(NextUp::default()) };
        let mut row = outbox::destination(tx, server)?;
        let now_ms = tx.shared.clock.now_ms();
        let has_failed = row.was_away();
        let acknowledged = row.in_flight.take_if(|sent| self.acknowledged.as_ref() == Some(&sent.id));
        if let Some(sent) = &acknowledged {
            acknowledge(tx, server, &mut row, sent, known_to, now_ms)?;
        }
        let is_back = self.took_brief && row.was_away();
        // The clock may have been set back since.
        let is_noted_late = now_ms.abs_diff(row.succeeded_ms) >= NOTED_EVERY_MS;
        let is_noted = is_back || self.took_brief && is_noted_late;
        if is_noted {
            is_well(&mut row, known_to, now_ms);
        }
        let is_repeated = row.in_flight.is_some();
        let was_made_up_for = row.making_up.is_some();
        let (mut missed_nothing, mut was_idle) = (false, false);
        if !is_repeated {
            if self.begins {
                // What comes now is not to count as missed since then, or a moment's failure as one of hours.
                was_idle = is_failure_past(tx, server, &row, now_ms);
                if was_idle {
                    (row.failures, row.failing_since_ms) = (0, 0);
                }
                row.in_flight = begin(tx, server, &mut row, known_to, now_ms)?;
                if row.in_flight.is_some() {
                    // What is made up for is in no room that is looked at, nor in the queue: it is to be tried again all the same.
                    tx.shared.outbox.add_queued(server, StreamPos(1));
                }
                // While this server did not deal with it, or until an administrator had it tried. That is not to count for what it
                // misses later.
                let was_left = was_idle || row.failures == 0 && row.was_away();
                missed_nothing = row.in_flight.is_none() && was_left;
                row.failing_since_ms = if missed_nothing { 0 } else { row.failing_since_ms };
            }
            let may_have_been_trimmed =
                acknowledged.as_ref().is_some_and(|sent| has_failed || !sent.edus.is_empty());
            if (is_back || missed_nothing || was_idle || may_have_been_trimmed)
                && self.is_queue_empty(tx, server, &row, known_to)?
            {
                trimming::forget(tx, server)?;
            }
        }
        // Nothing else may be for it for long, and until then rows would be kept for what it has missed.
        let is_made_up_for = was_made_up_for && row.making_up.is_none();
        let has_taken = acknowledged.is_some() || self.took_brief;
        // Or what it was told is looked for again after every start, until it takes something.
        let lacks_no_more =
            row.lacks_receipts && !tx.shared.outbox.receipts_told_to(server, has_taken, true).1;
        if is_noted
            || missed_nothing
            || lacks_no_more
            || !is_repeated && (row.in_flight.is_some() || acknowledged.is_some() || is_made_up_for)
        {
            row.lacks_receipts |= has_failed;
            note(tx, server, &mut row, has_taken);
        }
        let delivered_to = row.delivered_to;
        let in_flight = row.in_flight.filter(|_| self.begins);
        let transaction = in_flight.map(|sent| render(tx, server, sent)).transpose()?;
        // What was in it may be gone by now; it is acknowledged all the same, for its position.
        Ok(NextUp { transaction, is_repeated, delivered_to })
    }
}

impl NextTransaction {
    /// Whether nothing was in the server's queue when the next was begun, or would be.
    fn is_queue_empty(
        &self,
        tx: &Tx,
        server: TextNum,
        row: &Destination,
        known_to: StreamPos,
    ) -> Result<bool> {
        match &row.in_flight {
            Some(next) => Ok(next.edus.is_empty()),
            None if self.begins => Ok(true),
            None => Ok(queued(tx, server, known_to)?.positions.is_empty()),
        }
    }
}

/// Whether the server's last failure says nothing of now. Its like may have had the places for long while something waited.
fn is_failure_past(tx: &Tx, server: TextNum, row: &Destination, now_ms: u64) -> bool {
    // If it was due later than now, the clock was set back.
    let since_ms = tx.shared.outbox.due_since_ms(server).map_or(now_ms, |since_ms| since_ms.min(now_ms));
    outbox::is_failure_past(row, since_ms)
}

/// The server has taken what was in flight.
fn acknowledge(
    tx: &mut Tx,
    server: TextNum,
    row: &mut Destination,
    sent: &InFlight,
    known_to: StreamPos,
    now_ms: u64,
) -> Result<()> {
    let (queue, waiting) = (shares::to_server(server), row.messages_waiting);
    let is_counted = shares::are_counted(tx, queue, waiting)?;
    let mut messages = Vec::new();
    for (pos, edu) in queued_at(tx, server, &sent.edus)? {
        if let OutgoingEdu::Direct(content) = &edu.value {
            let sender = if is_counted { shares::sender_in(content) } else { String::new() };
            messages.push((pos, sender));
        }
        tx.delete(&schema::OUTGOING_EDUS, &(server, pos));
    }
    row.messages_waiting = waiting.saturating_sub(messages.len() as u32);
    shares::gone(tx, queue, waiting, is_counted, messages)?;
    row.delivered_to = row.delivered_to.max(sent.delivers_to);
    making_up::taken(row);
    is_well(row, known_to, now_ms);
    Ok(())
}

/// The server has taken something.
fn is_well(row: &mut Destination, known_to: StreamPos, now_ms: u64) {
    // Judged by how long it was silent, before that is forgotten.
    delivery::begin_catching_up(row, known_to, now_ms);
    (row.failures, row.failing_since_ms) = (0, 0);
    (row.retry_ms, row.asked_ms) = (0, 0);
    row.succeeded_ms = now_ms;
}

/// Writes how the server stands, and with it up to where it was told receipts. If it `has_taken` what it
/// was sent, that counts.
fn note(tx: &mut Tx, server: TextNum, row: &mut Destination, has_taken: bool) {
    let (told_to, lacks) = tx.shared.outbox.receipts_told_to(server, has_taken, row.lacks_receipts);
    row.receipts_told_to = row.receipts_told_to.max(told_to);
    row.lacks_receipts = lacks;
    tx.put(&schema::DESTINATIONS, &server, row);
}

fn queued_at(
    reader: &Reader,
    server: TextNum,
    positions: &[StreamPos],
) -> Result<Vec<(StreamPos, Positioned<OutgoingEdu>)>> {
    let rows = reader.get_many(&schema::OUTGOING_EDUS, positions.iter().map(|pos| (server, *pos)))?;
    Ok(positions.iter().zip(rows).filter_map(|(pos, row)| Some((*pos, row?))).collect())
}

/// Picks what is next; `None` if there is nothing, and then the server has everything up to `known_to`.
fn begin(
    tx: &mut Tx,
    server: TextNum,
    row: &mut Destination,
    known_to: StreamPos,
    now_ms: u64,
) -> Result<Option<InFlight>> {
    let rooms = match tx.shared.outbox.rooms(server) {
        Some(rooms) => rooms,
        None => {
            let found = delivery::rooms_with_events(tx, server, row.delivered_to, known_to)?;
            tx.shared.outbox.found_rooms(server, found.clone());
            found
        }
    };
    let Queued { positions: edus, events: own_events, .. } = queued_of_company(tx, server, known_to)?;
    let events_max = EVENTS_MAX.saturating_sub(own_events);
    loop {
        let made_up = making_up::next(tx, server, row, known_to, events_max)?;
        if !made_up.is_empty() {
            return Ok(Some(in_flight(tx, now_ms, made_up, edus, row.delivered_to)));
        }
        let next = next_events(tx, server, row, &rooms, known_to, events_max)?;
        if !next.events.is_empty() || !edus.is_empty() {
            return Ok(Some(in_flight(tx, now_ms, next.events, edus, next.delivers_to)));
        }
        // Nothing up to there was for the server after all; there may be something behind.
        let is_further = next.delivers_to > row.delivered_to;
        row.delivered_to = row.delivered_to.max(next.delivers_to);
        // Who has caught up by that has nothing to be made up for, which only another look shows.
        let may_have_caught_up = is_further && row.making_up.is_some();
        if next.delivers_to >= known_to && !may_have_caught_up {
            return Ok(None);
        }
    }
}

fn in_flight(
    tx: &Tx,
    now_ms: u64,
    events: Vec<EventNum>,
    edus: Vec<StreamPos>,
    delivers_to: StreamPos,
) -> InFlight {
    let id = format!("{}-{}", delivers_to.0, tx.random_text(ID_CHARS));
    InFlight { id, begun_ms: now_ms, events, edus, delivers_to }
}

fn next_events(
    tx: &Tx,
    server: TextNum,
    row: &Destination,
    rooms: &BTreeMap<RoomNum, StreamPos>,
    known_to: StreamPos,
    events_max: usize,
) -> Result<delivery::Next> {
    let rooms = rooms.iter().filter(|(_, last)| **last > row.delivered_to).map(|(room, _)| *room);
    Ok(delivery::next(tx, server, row, &rooms.collect::<Vec<_>>(), known_to, events_max)?)
}

/// What is next in the server's queue.
#[derive(Default)]
struct Queued {
    positions: Vec<StreamPos>,
    /// How many of them are events.
    events: usize,
    /// Those about devices and keys, and whose.
    about_users: Vec<(StreamPos, UserNum)>,
}

/// What is next in the server's queue, as much as fits into one transaction.
fn queued(tx: &Tx, server: TextNum, known_to: StreamPos) -> Result<Queued> {
    let (mut found, mut bytes) = (Queued::default(), 0);
    let end = (server, StreamPos(known_to.0.saturating_add(1)));
    tx.scan_between(&schema::OUTGOING_EDUS, &server, &end, Direction::Forward, |(_, pos), row| {
        match &row.value {
            OutgoingEdu::Direct(content) => bytes += content.len(),
            OutgoingEdu::DeviceList(user, _) | OutgoingEdu::SigningKeys(user) => {
                found.about_users.push((pos, *user));
            }
            OutgoingEdu::Event(_) if found.events == OWN_EVENTS_MAX => return false,
            OutgoingEdu::Event(_) => found.events += 1,
        }
        found.positions.push(pos);
        found.positions.len() < EDUS_MAX && bytes < MESSAGES_BYTES_MAX
    })?;
    Ok(found)
}

/// What is next in the server's queue, after what is about users with whom it shares no room any more is taken out. That is not only
/// left out when it is rendered, for a transaction that goes out again must have nothing that it lacked at first: whoever had
/// taken that takes no more of it. Where a room is shared again, the list is told anew.
fn queued_of_company(tx: &mut Tx, server: TextNum, known_to: StreamPos) -> Result<Queued> {
    loop {
        let mut queued = queued(tx, server, known_to)?;
        let mut company = Company::new(tx, server);
        let mut strangers = Vec::new();
        for (pos, user) in &queued.about_users {
            if !company.has(*user, None)? {
                strangers.push(*pos);
            }
        }
        for pos in &strangers {
            tx.delete(&schema::OUTGOING_EDUS, &(server, *pos));
        }
        queued.positions.retain(|pos| !strangers.contains(pos));
        // Where nothing is left of what was looked at, there may be more behind it.
        if strangers.is_empty() || !queued.positions.is_empty() {
            return Ok(queued);
        }
    }
}

fn render(tx: &Tx, server: TextNum, sent: InFlight) -> Result<Transaction> {
    // What the server missed on its way into a room comes before what was said there since.
    let mut events = Vec::with_capacity(sent.events.len());
    let mut edus = Vec::with_capacity(sent.edus.len());
    let mut company = Company::new(tx, server);
    for (pos, row) in queued_at(tx, server, &sent.edus)? {
        // Devices are told as they are now, which is no business of a server that has left meanwhile.
        if let OutgoingEdu::DeviceList(user, _) | OutgoingEdu::SigningKeys(user) = row.value
            && !company.has(user, None)?
        {
            continue;
        }
        edus.push(match row.value {
            OutgoingEdu::Direct(content) => edu("m.direct_to_device", &content),
            OutgoingEdu::DeviceList(user, device) => {
                edu("m.device_list_update", &updates::device_list_update(tx, user, device, pos, row.pos)?)
            }
            OutgoingEdu::SigningKeys(user) => {
                edu("m.signing_key_update", &updates::signing_key_update(tx, user)?)
            }
            OutgoingEdu::Event(num) => {
                events.push(num);
                continue;
            }
        });
    }
    events.extend(sent.events);
    let pdus = tx.events_left(&events)?.into_iter().map(|event| event.json.clone()).collect();
    Ok(Transaction { id: sent.id, origin_server_ts: sent.begun_ms, pdus, edus })
}

#[cfg(test)]
mod tests;
