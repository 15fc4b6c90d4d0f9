//! Long queues: whose their messages are is what the messages say, and is counted right. A queue that is wrong is not counted any
//! more, and is when the next message comes.

use super::{
    accounts::count,
    pass::{Pass, Row, readable},
};
use crate::{
    core::num::{StreamPos, UserNum},
    outbox::shares::{self, Queue, Sender},
    store::{StorageError, schema, schema::OutgoingEdu},
};

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over_derived(&schema::QUEUE_SENDERS, |row, (user, text, side, num, pos), ()| {
            let queue = (user, text);
            row.seen.uses_position(pos);
            let sender = sender_at(row, queue, pos)?;
            let is_its = sender.is_some_and(|sender| sender.place() == (side, num));
            expect(row, queue, is_its, "the message is not there, or is somebody else's");
            Ok(())
        }),
        Pass::over_derived(&schema::QUEUE_SHARES, |row, (user, text, side, num), share| {
            let queue = (user, text);
            let senders = schema::QUEUE_SENDERS.raw();
            if num == shares::ALL {
                let right = count(row, &senders, &(user, text, side))?;
                let waiting = waiting(row, queue)?;
                let is_all = shares::counted(row.reader(), queue)? == waiting;
                expect(row, queue, u64::from(share) == right, "the messages of a side are counted wrong");
                expect(row, queue, is_all, "not all messages are counted");
                return Ok(());
            }
            let right = count(row, &senders, &(user, text, side, num))?;
            expect(row, queue, u64::from(share) == right, "the sender's messages are counted wrong");
            let is_ranked = row.reader().has(&schema::QUEUE_RANKS, &(user, text, side, share, num))?;
            expect(row, queue, is_ranked, "the sender has no rank");
            Ok(())
        }),
        Pass::over_derived(&schema::QUEUE_RANKS, |row, (user, text, side, share, num), ()| {
            let right = readable(row.reader().get(&schema::QUEUE_SHARES, &(user, text, side, num)))?;
            expect(row, (user, text), right == Some(share), "the sender has another rank");
            Ok(())
        }),
    ]
}

fn expect(row: &mut Row<'_>, queue: Queue, holds: bool, problem: &str) {
    if !row.expect(holds, problem) {
        row.mend(schema::QUEUE_SHARES.name, move |tx| {
            shares::forget_rows(tx, queue);
            Ok(())
        });
    }
}

/// Whose the message is that stands in the queue there.
fn sender_at(row: &Row<'_>, queue: Queue, pos: StreamPos) -> Result<Option<Sender>, StorageError> {
    let (user, text) = queue;
    let user_id = if user == UserNum(0) {
        match readable(row.reader().get(&schema::OUTGOING_EDUS, &(text, pos)))?.map(|edu| edu.value) {
            Some(OutgoingEdu::Direct(content)) => Some(shares::sender_in(&content)),
            _ => None,
        }
    } else {
        let message = row.reader().get(&schema::TO_DEVICE, &(user, text, pos))?;
        message.map(|message| shares::sender_in(&message))
    };
    user_id.map(|user_id| Sender::named(row.reader(), &user_id)).transpose()
}

/// How many messages are in the queue.
fn waiting(row: &Row<'_>, (user, text): Queue) -> Result<u32, StorageError> {
    let waiting = if user == UserNum(0) {
        readable(row.reader().get(&schema::DESTINATIONS, &text))?.map(|row| row.messages_waiting)
    } else {
        readable(row.reader().get(&schema::TO_DEVICE_COUNTS, &(user, text)))?
    };
    Ok(waiting.unwrap_or_default())
}
