//! A user sends messages to devices.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    core::{
        identifiers,
        json::{
            splice::{member, object_member, string_member},
            write_object,
        },
        num::{TextNum, UserNum},
    },
    device::to_device,
    error::{Error, Invalid, Result, What},
    outbox::{self, shares::Sender},
    store::{Positioned, Reader, Tx, schema},
};

/// The most bytes of messages, with whom they are to, that go to another server in one piece: as much as an event. One
/// message may be as large by itself.
const PIECE_BYTES_MAX: usize = 65_536;
/// The most messages that go to another server in one piece: what any server takes of one. Small ones would be thousands.
const PIECE_MESSAGES_MAX: usize = 1_000;
/// The random part of the id of a piece: 120 bits. Specification: "maximum length 32 codepoints".
const MESSAGE_ID_CHARS: usize = 20;

/// `PUT /sendToDevice/{eventType}/{txnId}`. Messages to users of other servers go to these.
pub struct SendToDevice {
    /// Who sends.
    pub sender: String,
    /// The type of all the messages.
    pub kind: String,
    /// The messages.
    pub messages: Vec<DeviceMessage>,
    /// The client's device and transaction id: the same again sends nothing.
    pub transaction: Option<(String, String)>,
}

/// A message.
pub struct DeviceMessage {
    /// To whom.
    pub user_id: String,
    /// To which device of theirs; `*` for all.
    pub device_id: String,
    /// The content: a JSON object.
    pub content: Bytes,
}

/// The device id that stands for all devices of a user.
const ALL_DEVICES: &str = "*";

impl Command for SendToDevice {
    type Output = ();

    fn lanes(&self) -> Lanes {
        let lanes = Lanes::default().user(&self.sender);
        self.messages.iter().fold(lanes, |lanes, message| {
            let lanes = lanes.user(&message.user_id);
            match identifiers::server_name(&message.user_id) {
                Some(server) => lanes.name(server),
                None => lanes,
            }
        })
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let sender = tx.user_num(&self.sender)?.ok_or(Error::NotFound(What::User))?;
        // The path of the endpoint, as in the rows of events' transactions, which begin with a room's id.
        let transaction = match &self.transaction {
            None => None,
            Some((device_id, id)) => {
                Some((sender, tx.intern_text(device_id)?, format!("sendToDevice/{}/{id}", self.kind)))
            }
        };
        if let Some(key) = &transaction
            && tx.has(&schema::TRANSACTIONS, key)?
        {
            return Ok(());
        }
        let pos = tx.next_position();
        let mut elsewhere: BTreeMap<&str, Vec<&DeviceMessage>> = BTreeMap::new();
        let mut reached: BTreeSet<(UserNum, TextNum)> = BTreeSet::new();
        let mut bytes = 0;
        for message in &self.messages {
            if let Some(server) = self.server_elsewhere(tx, message) {
                bytes = checked_sum(bytes, message.content.len())?;
                elsewhere.entry(server).or_default().push(message);
                continue;
            }
            let event = to_device::event(&self.sender, &self.kind, &message.content)?;
            for (user, device) in recipients(tx, message)? {
                // A device gets one message of a transaction, under its one position: the first counts.
                if !reached.insert((user, device)) {
                    continue;
                }
                bytes = checked_sum(bytes, event.len())?;
                to_device::enqueue(tx, (user, device), pos, Sender::Here(sender), &event)?;
            }
        }
        for (server, messages) in elsewhere {
            self.send_elsewhere(tx, sender, server, &messages)?;
        }
        if let Some(key) = transaction {
            tx.put(&schema::TRANSACTIONS, &key, &Positioned { pos, value: String::new() });
        }
        Ok(())
    }
}

impl SendToDevice {
    /// The server that the message goes to, if it is another one.
    fn server_elsewhere<'m>(&self, tx: &Tx, message: &'m DeviceMessage) -> Option<&'m str> {
        let server = identifiers::server_name(&message.user_id)?;
        (*server != *tx.shared.server_name && identifiers::is_user_id(&message.user_id)).then_some(server)
    }

    /// Queues messages for another server, each to be taken by it once. Servers that none of the sender's rooms has
    /// anything to do with get nothing: nobody there knows the sender.
    fn send_elsewhere(
        &self,
        tx: &mut Tx,
        sender: UserNum,
        server: &str,
        messages: &[&DeviceMessage],
    ) -> Result<()> {
        let mut contents: Vec<(&str, &str, Vec<u8>)> = Vec::with_capacity(messages.len());
        for message in messages {
            let mut content = Vec::with_capacity(message.content.len());
            write_object(&mut content, &to_device::content(&message.content)?);
            contents.push((&message.user_id, &message.device_id, content));
        }
        if !is_met(tx, sender, server)? {
            return Ok(());
        }
        contents.sort();
        let mut rest = contents.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(PIECE_MESSAGES_MAX).take_while(|(user_id, device_id, content)| {
                let is_first = bytes == 0;
                bytes += user_id.len() + device_id.len() + content.len();
                is_first || bytes <= PIECE_BYTES_MAX
            });
            let (piece, behind) = rest.split_at(fits.count());
            let content = self.piece(tx, piece)?;
            outbox::send_messages(tx, server, sender, content)?;
            rest = behind;
        }
        Ok(())
    }

    /// The content of an `m.direct_to_device`. Users stand together in `messages`.
    fn piece(&self, tx: &Tx, messages: &[(&str, &str, Vec<u8>)]) -> Result<Vec<u8>> {
        let mut out = vec![b'{'];
        string_member(&mut out, "message_id", &tx.random_text(MESSAGE_ID_CHARS));
        object_member(&mut out, "messages", |out| {
            for of_user in messages.chunk_by(|a, b| a.0 == b.0) {
                let Some((user_id, _, _)) = of_user.first() else { continue };
                object_member(out, user_id, |out| {
                    for (_, device_id, content) in of_user {
                        member(out, device_id);
                        out.extend_from_slice(content);
                    }
                    Ok::<(), Error>(())
                })?;
            }
            Ok::<(), Error>(())
        })?;
        string_member(&mut out, "sender", &self.sender);
        string_member(&mut out, "type", &self.kind);
        out.push(b'}');
        Ok(out)
    }
}

fn checked_sum(bytes: usize, more: usize) -> Result<usize> {
    let (sum, max) = (bytes.saturating_add(more), to_device::REQUEST_BYTES_MAX);
    if sum > max { Err(Invalid::TooLarge { what: "bytes of all messages", max }.into()) } else { Ok(sum) }
}

/// Whether a user of the server has, or had, to do with a room that the user is in: also who is only invited needs keys.
fn is_met(reader: &Reader, user: UserNum, server: &str) -> Result<bool> {
    // Of a name that somebody has made up no room is asked.
    let Some(num) = reader.text_num(server)? else { return Ok(false) };
    for room in reader.joined_rooms(user)? {
        if reader.is_supposed(num, room)? || reader.has_user_of(server, room)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The devices that a message goes to. Users and devices that do not exist get nothing, which is no error.
fn recipients(tx: &mut Tx, message: &DeviceMessage) -> Result<Vec<(UserNum, TextNum)>> {
    let Some(user) = tx.user_num(&message.user_id)? else { return Ok(Vec::new()) };
    let device_ids = if message.device_id == ALL_DEVICES {
        to_device::devices(tx, user)?
    } else if tx.has(&schema::DEVICES, &(user, message.device_id.clone()))? {
        BTreeSet::from([message.device_id.clone()])
    } else {
        BTreeSet::new()
    };
    device_ids.iter().map(|device_id| Ok((user, tx.intern_text(device_id)?))).collect()
}
