//! What another server tells outside of rooms comes in: who types, who has read what, who is there, messages to devices,
//! changes of devices and keys.
//!
//! Invariant: each part is judged by itself; what is not the server's to tell, or is about what is not here, is passed over.
//! A message to devices comes once, however often it is told (for as long as its id is remembered).
//! Specification: server-server API, "EDUs", "Server Access Control Lists (ACLs)".

use std::collections::BTreeSet;

use crate::{
    account::presence,
    command::{Command, Lanes},
    core::{
        identifiers,
        num::{RoomNum, TextNum, UserNum},
    },
    device::{
        elsewhere::{self, Update, Updated},
        lists, to_device,
    },
    error::Result,
    remote::{self, IncomingEdu, IncomingPresence, IncomingReceipt},
    room::{
        RoomCtx,
        receipts::{self, MAIN_THREAD, ReceiptKind, UNTHREADED},
        servers::server_allowed,
    },
    store::{
        Tx, schema,
        schema::{EventStatus, Membership, ReceivedTransaction},
    },
    stream::Touch,
};

/// How long a typing notice holds, in milliseconds: other servers renew theirs every 40 seconds or sooner.
const TYPING_MS: u64 = 60_000;
/// How long what a server says of its user's presence holds, in milliseconds: half an hour, as on other servers, which do
/// not repeat what has not changed any sooner.
const PRESENCE_MS: u64 = 30 * 60 * 1000;
/// The most bytes of an answer that is kept: a reason of a thousand bytes for each of fifty events. After a longer one, the
/// same transaction is taken in again, which does no harm.
const ANSWER_BYTES_MAX: usize = 65_536;
/// The longest id of a transaction that is remembered, in bytes.
const TRANSACTION_ID_BYTES_MAX: usize = 255;
/// The device id that stands for all devices of a user.
const ALL_DEVICES: &str = "*";

/// What a server tells in one transaction.
#[derive(Clone, Debug)]
pub struct ReceiveEdus {
    origin: String,
    edus: Vec<IncomingEdu>,
}

impl ReceiveEdus {
    /// `origin` is the server that has signed the request.
    pub fn new<'a>(origin: &str, edus: impl IntoIterator<Item = &'a serde_json::Value>) -> Self {
        let edus = edus.into_iter().take(super::Transaction::EDUS_MAX);
        Self { origin: origin.to_owned(), edus: edus.filter_map(|edu| remote::parse(origin, edu)).collect() }
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.edus.is_empty()
    }
}

impl Command for ReceiveEdus {
    /// Users whose devices have to be asked for anew ([`crate::command::StoreRemoteDevices`]).
    type Output = Vec<String>;

    fn lanes(&self) -> Lanes {
        let mut users: BTreeSet<&str> = BTreeSet::new();
        for edu in &self.edus {
            match edu {
                IncomingEdu::Typing { .. } => {}
                IncomingEdu::Receipts(receipts) => {
                    users.extend(receipts.iter().map(|receipt| &*receipt.user_id));
                }
                IncomingEdu::Presence(updates) => users.extend(updates.iter().map(|update| &*update.user_id)),
                IncomingEdu::Direct { messages, .. } => {
                    users.extend(messages.iter().map(|(user_id, _, _)| &**user_id));
                }
                IncomingEdu::DeviceList { user_id, .. } | IncomingEdu::SigningKeys { user_id, .. } => {
                    users.insert(user_id);
                }
            }
        }
        users.into_iter().fold(Lanes::default().name(&self.origin), Lanes::user)
    }

    fn run(&self, tx: &mut Tx) -> Result<Vec<String>> {
        let mut stale = BTreeSet::new();
        for edu in &self.edus {
            match edu {
                IncomingEdu::Typing { room_id, user_id, typing } => {
                    self.typing(tx, room_id, user_id, *typing)?;
                }
                IncomingEdu::Receipts(receipts) => {
                    for receipt in receipts {
                        self.receipt(tx, receipt)?;
                    }
                }
                IncomingEdu::Presence(updates) => {
                    for update in updates {
                        present(tx, update)?;
                    }
                }
                IncomingEdu::Direct { sender, kind, message_id, messages } => {
                    // What reaches nobody is not remembered: others could make up as much of it as they like.
                    let key = (tx.intern_text(&self.origin)?, message_id.clone());
                    if !tx.has(&schema::RECEIVED_MESSAGES, &key)? && deliver(tx, sender, kind, messages)? {
                        tx.put(&schema::RECEIVED_MESSAGES, &key, &tx.shared.clock.now_ms());
                    }
                }
                IncomingEdu::DeviceList { user_id, device_id, stream_id, prev_ids, name, keys } => {
                    let update = Update {
                        device_id,
                        stream_id: *stream_id,
                        prev_ids,
                        name: name.as_deref(),
                        keys: keys.as_ref(),
                    };
                    if device_changed(tx, user_id, &update)? {
                        stale.insert(user_id.clone());
                    }
                }
                IncomingEdu::SigningKeys { user_id, master, self_signing } => {
                    let Some(user) = neighbour(tx, user_id)? else { continue };
                    let (master, self_signing) = (master.as_ref(), self_signing.as_ref());
                    let is_kept = tx.has(&schema::REMOTE_DEVICE_LISTS, &user)?;
                    if !is_kept || elsewhere::put_signing_keys(tx, user, user_id, master, self_signing)? {
                        lists::changed_elsewhere(tx, user)?;
                    }
                }
            }
        }
        Ok(stale.into_iter().collect())
    }
}

impl ReceiveEdus {
    /// The room and the user, if the user is in the room and the server may take part in it.
    fn member(&self, tx: &Tx, room_id: &str, user_id: &str) -> Result<Option<(RoomNum, UserNum)>> {
        let Some(room) = RoomCtx::find(tx, room_id)? else { return Ok(None) };
        let Some(user) = tx.user_num(user_id)? else { return Ok(None) };
        let is_in = tx.membership(user, room.num)? == Some(Membership::Join);
        let may = is_in && server_allowed(tx, &room, &self.origin).is_ok();
        Ok(may.then_some((room.num, user)))
    }

    fn typing(&self, tx: &mut Tx, room_id: &str, user_id: &str, typing: bool) -> Result<()> {
        let Some((room, user)) = self.member(tx, room_id, user_id)? else { return Ok(()) };
        let until_ms = if typing { tx.shared.clock.now_ms() + TYPING_MS } else { 0 };
        tx.next_position();
        tx.touch(Touch::Typing { user, room, until_ms });
        Ok(())
    }

    fn receipt(&self, tx: &mut Tx, receipt: &IncomingReceipt) -> Result<()> {
        let Some((room, user)) = self.member(tx, &receipt.room_id, &receipt.user_id)? else { return Ok(()) };
        let Some(num) = tx.event_num(&receipt.event_id)? else { return Ok(()) };
        let event = tx.event(num)?;
        if event.header.room != room || event.header.status != EventStatus::Accepted {
            return Ok(());
        }
        let thread = match receipt.thread_id.as_deref() {
            None => UNTHREADED,
            Some(MAIN_THREAD) => MAIN_THREAD,
            // A thread's root is an event of the room, so that nobody can make up threads without end.
            Some(root) => match tx.event_num(root)? {
                Some(num) if tx.event(num)?.header.room == room => root,
                _ => return Ok(()),
            },
        };
        let ts = receipt.ts.min(tx.shared.clock.now_ms());
        receipts::set(tx, room, user, ReceiptKind::Read, thread, &event, ts)?;
        Ok(())
    }
}

/// The user, if they are in a room that this server is in.
fn neighbour(tx: &Tx, user_id: &str) -> Result<Option<UserNum>> {
    let Some(user) = tx.user_num(user_id)? else { return Ok(None) };
    Ok((!tx.joined_rooms(user)?.is_empty()).then_some(user))
}

fn present(tx: &mut Tx, update: &IncomingPresence) -> Result<()> {
    let Some(user) = neighbour(tx, &update.user_id)? else { return Ok(()) };
    let claim = presence::claim_elsewhere(tx, update.state, PRESENCE_MS);
    presence::say(tx, user, claim, update.status_msg.clone())
}

/// Whether the message is in the queue of any device.
fn deliver(
    tx: &mut Tx,
    sender: &str,
    kind: &str,
    messages: &[(String, String, crate::core::event::JsonObject)],
) -> Result<bool> {
    let pos = tx.next_position();
    let mut reached: BTreeSet<(UserNum, TextNum)> = BTreeSet::new();
    let mut is_kept = false;
    for (user_id, device_id, content) in messages {
        if identifiers::server_name(user_id) != Some(&*tx.shared.server_name) {
            continue;
        }
        let Some(user) = tx.user_num(user_id)? else { continue };
        let devices = if device_id == ALL_DEVICES {
            to_device::devices(tx, user)?
        } else if tx.has(&schema::DEVICES, &(user, device_id.clone()))? {
            BTreeSet::from([device_id.clone()])
        } else {
            continue;
        };
        let event = to_device::event_of(sender, kind, content);
        if event.len() > to_device::MESSAGE_BYTES_MAX {
            continue;
        }
        for device_id in devices {
            let device = tx.intern_text(&device_id)?;
            if reached.insert((user, device)) {
                is_kept |= to_device::enqueue(tx, user, device, pos, &event)?;
            }
        }
    }
    Ok(is_kept)
}

/// Whether the user's devices have to be asked for anew.
fn device_changed(tx: &mut Tx, user_id: &str, update: &Update<'_>) -> Result<bool> {
    let Some(user) = neighbour(tx, user_id)? else { return Ok(false) };
    let updated = elsewhere::update(tx, user, user_id, update)?;
    if updated != Updated::Known {
        lists::changed_elsewhere(tx, user)?;
    }
    Ok(updated == Updated::Stale)
}

/// Notes how a server's transaction was answered, so that it is answered alike when it is sent again.
#[derive(Clone, Debug)]
pub struct NoteTransaction {
    /// The server.
    pub origin: String,
    /// The transaction's id.
    pub transaction_id: String,
    /// The body of the answer.
    pub answer: Vec<u8>,
    /// An older transaction of the server, which it will not send again.
    pub over: Option<String>,
}

impl Command for NoteTransaction {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // Whoever answers it twice at once has taken the same in twice, which does no harm.
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let origin = tx.intern_text(&self.origin)?;
        if let Some(over) = &self.over {
            tx.delete(&schema::RECEIVED_TRANSACTIONS, &(origin, over.clone()));
        }
        let key = (origin, self.transaction_id.clone());
        if self.answer.len() > ANSWER_BYTES_MAX || self.transaction_id.len() > TRANSACTION_ID_BYTES_MAX {
            return Ok(());
        }
        let received_ms = tx.shared.clock.now_ms();
        let row = ReceivedTransaction { received_ms, answer: self.answer.clone() };
        tx.put(&schema::RECEIVED_TRANSACTIONS, &key, &row);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
