//! A user sends messages to devices.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    command::{Command, Lanes},
    core::num::{TextNum, UserNum},
    device::to_device,
    error::{Error, Invalid, Result, What},
    store::{Positioned, Tx, schema},
};

/// `PUT /sendToDevice/{eventType}/{txnId}`, to users of this server.
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
        self.messages.iter().fold(lanes, |lanes, message| lanes.user(&message.user_id))
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
        let mut reached: BTreeSet<(UserNum, TextNum)> = BTreeSet::new();
        let mut bytes = 0;
        for message in &self.messages {
            let event = to_device::event(&self.sender, &self.kind, &message.content)?;
            for (user, device) in recipients(tx, message)? {
                // A device gets one message of a transaction, under its one position: the first counts.
                if !reached.insert((user, device)) {
                    continue;
                }
                bytes += event.len();
                if bytes > to_device::REQUEST_BYTES_MAX {
                    let max = to_device::REQUEST_BYTES_MAX;
                    return Err(Invalid::TooLarge { what: "bytes of all messages", max }.into());
                }
                to_device::enqueue(tx, user, device, pos, &event)?;
            }
        }
        if let Some(key) = transaction {
            tx.put(&schema::TRANSACTIONS, &key, &Positioned { pos, value: String::new() });
        }
        Ok(())
    }
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
