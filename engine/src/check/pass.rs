//! A pass over the rows of one keyspace: what both checking and mending are made of.
//!
//! Invariant: a pass only reads. What it finds wrong it says, together with the writes that would mend it, which are
//! made by `repair` alone; so what is found and what is mended cannot come apart. A row that cannot be read is a finding
//! and does not hide the rows behind it.

use std::fmt;

use bytes::Bytes;

use super::{Finding, seen::Seen};
use crate::{
    core::num::{EventNum, RoomNum, TextNum, UserNum},
    room::decode_body,
    store::{
        Direction, InternedKind, Key, Positioned, Reader, RestOfKey, StorageError, Tx, Value, ValueWriter,
        encode_key, schema,
        schema::{EventHeader, Keyspace},
    },
};

/// Rows that are read at a time. Some hundred bytes each; bodies up to 64 KiB.
const ROWS_AT_A_TIME: usize = 256;

/// The writes that one visit may propose; the row is visited again for the rest, so that a room of any size is mended in
/// batches of some 100 KiB.
pub(super) const MENDS_PER_VISIT_MAX: usize = 1_000;

/// Makes a write.
pub(super) type Write = dyn FnOnce(&mut Tx) -> Result<(), StorageError>;

/// A write that mends something.
pub(super) struct Mend {
    /// The keyspace that it writes to.
    pub place: &'static str,
    /// Makes the write.
    pub write: Box<Write>,
}

type Finish = fn(&mut Row<'_>) -> Result<(), StorageError>;

type Visit = dyn Fn(&mut Row<'_>, &RestOfKey, &Bytes) -> Result<(), StorageError>;

/// Looks at each row of one keyspace.
pub(super) struct Pass {
    keyspace: Keyspace<RestOfKey, Bytes>,
    visit: Box<Visit>,
    /// Looks, behind the last row, for rows that are not there.
    finish: Option<Finish>,
}

/// Where the next step of a pass begins.
pub(super) enum Cursor {
    /// At this key, or the first behind it.
    At(Vec<u8>),
    /// The pass is over.
    End,
}

impl Pass {
    /// Visits all rows of a keyspace whose rows are facts: what cannot be read is left alone.
    pub fn over<K: Key + fmt::Debug + 'static, V: Value + 'static>(
        keyspace: &Keyspace<K, V>,
        visit: impl Fn(&mut Row<'_>, K, V) -> Result<(), StorageError> + 'static,
    ) -> Self {
        Self::new(keyspace, visit, |_, _, _| ())
    }

    /// Visits all rows of a keyspace whose rows follow from others: what cannot be read is removed, to be made anew.
    pub fn over_derived<K: Key + fmt::Debug + 'static, V: Value + 'static>(
        keyspace: &Keyspace<K, V>,
        visit: impl Fn(&mut Row<'_>, K, V) -> Result<(), StorageError> + 'static,
    ) -> Self {
        Self::new(keyspace, visit, |row, keyspace, key| {
            let (keyspace, key) = (keyspace.raw(), RestOfKey(key.0.clone()));
            row.mend(keyspace.name, move |tx| {
                tx.delete(&keyspace, &key);
                Ok(())
            });
        })
    }

    fn new<K: Key + fmt::Debug + 'static, V: Value + 'static>(
        keyspace: &Keyspace<K, V>,
        visit: impl Fn(&mut Row<'_>, K, V) -> Result<(), StorageError> + 'static,
        unreadable: fn(&mut Row<'_>, &Keyspace<RestOfKey, Bytes>, &RestOfKey),
    ) -> Self {
        let raw = keyspace.raw();
        let visit = move |row: &mut Row<'_>, key: &RestOfKey, value: &Bytes| {
            let (Some(decoded), Some(value)) = (key.decode::<K>(), V::read(value)) else {
                row.subject = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
                row.found("the row cannot be read");
                unreadable(row, &raw, key);
                return Ok(());
            };
            row.subject = format!("{decoded:?}");
            visit(row, decoded, value)
        };
        Self { keyspace: keyspace.raw(), visit: Box::new(visit), finish: None }
    }

    /// Adds what is done behind the last row.
    pub fn finish(mut self, finish: fn(&mut Row<'_>) -> Result<(), StorageError>) -> Self {
        self.finish = Some(finish);
        self
    }

    /// The keyspace's name.
    pub fn place(&self) -> &'static str {
        self.keyspace.name
    }

    /// The next rows from `cursor` on.
    pub fn read_rows(
        &self,
        reader: &Reader,
        cursor: &[u8],
    ) -> Result<(Vec<(RestOfKey, Bytes)>, Cursor), StorageError> {
        let mut rows: Vec<(RestOfKey, Bytes)> = Vec::new();
        let mut next = Cursor::End;
        // Numbers are never all ones, and texts have no such bytes: behind every key.
        let end = RestOfKey(vec![u8::MAX; 64]);
        let start = RestOfKey(cursor.to_vec());
        reader.scan_between(&self.keyspace, &start, &end, Direction::Forward, |key: RestOfKey, value| {
            if rows.len() == ROWS_AT_A_TIME {
                next = Cursor::At(key.0);
                return false;
            }
            rows.push((key, value));
            true
        })?;
        Ok((rows, next))
    }

    /// The value of a row as it is now; something else may have been mended since the rows were read.
    pub fn read_again(&self, reader: &Reader, key: &RestOfKey) -> Result<Option<Bytes>, StorageError> {
        reader.get(&self.keyspace, key)
    }

    /// Looks at one row. What is corrupt is a finding; other errors end the check.
    pub fn visit<'a>(
        &self,
        reader: &'a Reader,
        seen: &'a mut Seen,
        key: &RestOfKey,
        value: &Bytes,
    ) -> Result<Row<'a>, StorageError> {
        let mut row = Row::new(reader, seen, self.place());
        row.catch(|row| (self.visit)(row, key, value))?;
        Ok(row)
    }

    /// Looks for rows that are not there.
    pub fn visit_end<'a>(&self, reader: &'a Reader, seen: &'a mut Seen) -> Result<Row<'a>, StorageError> {
        let mut row = Row::new(reader, seen, self.place());
        if let Some(finish) = self.finish {
            row.catch(finish)?;
        }
        Ok(row)
    }
}

/// A row that is being looked at.
pub(super) struct Row<'a> {
    reader: &'a Reader,
    /// What the passes before have seen.
    pub seen: &'a mut Seen,
    place: &'static str,
    /// Which row.
    pub subject: String,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What would mend it.
    pub mends: Vec<Mend>,
    /// Whether there is more to mend than one visit may.
    pub is_unfinished: bool,
}

impl<'a> Row<'a> {
    fn new(reader: &'a Reader, seen: &'a mut Seen, place: &'static str) -> Self {
        let (findings, mends) = (Vec::new(), Vec::new());
        Self { reader, seen, place, subject: String::new(), findings, mends, is_unfinished: false }
    }

    fn catch(
        &mut self,
        visit: impl FnOnce(&mut Self) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        match visit(self) {
            Err(StorageError::Corrupt(problem)) => {
                self.found(problem);
                Ok(())
            }
            done => done,
        }
    }

    /// What is read from.
    pub fn reader(&self) -> &'a Reader {
        self.reader
    }

    /// Notes that something is wrong with the row.
    pub fn found(&mut self, problem: impl Into<String>) {
        let (place, subject) = (self.place, self.subject.clone());
        self.findings.push(Finding { place, subject, problem: problem.into() });
    }

    /// Notes `problem` unless `holds`; returns whether it does.
    pub fn expect(&mut self, holds: bool, problem: &str) -> bool {
        if !holds {
            self.found(problem);
        }
        holds
    }

    /// Proposes a write to `place`.
    pub fn mend(
        &mut self,
        place: &'static str,
        write: impl FnOnce(&mut Tx) -> Result<(), StorageError> + 'static,
    ) {
        if self.mends.len() < MENDS_PER_VISIT_MAX {
            self.mends.push(Mend { place, write: Box::new(write) });
        } else {
            self.is_unfinished = true;
        }
    }

    /// Proposes to write a row.
    pub fn put<K: Key, V: Value>(&mut self, keyspace: &Keyspace<K, V>, key: &K, value: &V) {
        let (keyspace, key) = (keyspace.raw(), raw_key(keyspace, key));
        let mut out = ValueWriter::default();
        value.write(&mut out);
        let value = Bytes::from(out.bytes);
        self.mend(keyspace.name, move |tx| {
            tx.put(&keyspace, &key, &value);
            Ok(())
        });
    }

    /// Proposes to remove a row.
    pub fn delete<K: Key, V: Value>(&mut self, keyspace: &Keyspace<K, V>, key: &K) {
        let (keyspace, key) = (keyspace.raw(), raw_key(keyspace, key));
        self.mend(keyspace.name, move |tx| {
            tx.delete(&keyspace, &key);
            Ok(())
        });
    }

    /// Expects `key` to hold `value`, and proposes to write it.
    pub fn expect_row<K: Key, V: Value + PartialEq>(
        &mut self,
        keyspace: &Keyspace<K, V>,
        key: &K,
        value: &V,
        problem: &str,
    ) -> Result<bool, StorageError> {
        let holds = match self.reader.get(keyspace, key) {
            Ok(found) => found.as_ref() == Some(value),
            // A row that cannot be read is told of where its keyspace is visited.
            Err(StorageError::Corrupt(_)) => false,
            Err(error) => return Err(error),
        };
        if !self.expect(holds, problem) {
            self.put(keyspace, key, value);
        }
        Ok(holds)
    }

    /// Proposes to change the header of an event, as it is by then.
    pub fn change_header(
        &mut self,
        num: EventNum,
        change: impl FnOnce(&mut Tx, &mut Positioned<EventHeader>) -> Result<(), StorageError> + 'static,
    ) {
        self.mend(schema::EVENT_HEADERS.name, move |tx| {
            if let Some(mut header) = tx.get(&schema::EVENT_HEADERS, &num)? {
                change(tx, &mut header)?;
                tx.put(&schema::EVENT_HEADERS, &num, &header);
            }
            Ok(())
        });
    }

    /// The header of an event; `None` also if it cannot be read, which is told where headers are visited.
    pub fn header(&self, num: EventNum) -> Result<Option<Positioned<EventHeader>>, StorageError> {
        readable(self.reader.get(&schema::EVENT_HEADERS, &num))
    }

    /// The id and JSON of an event; `None` also if they cannot be read.
    pub fn body(&self, num: EventNum) -> Result<Option<(std::sync::Arc<str>, Bytes)>, StorageError> {
        Ok(self.reader.get(&schema::EVENT_BODIES, &num)?.as_ref().and_then(decode_body))
    }

    /// The number of the event with this id.
    pub fn event_num(&self, event_id: &str) -> Result<Option<EventNum>, StorageError> {
        readable(self.reader.get(&schema::EVENT_NUMS, &event_id.to_owned()))
    }

    /// The name behind a number, past all caches.
    pub fn name(&self, kind: InternedKind, num: u64) -> Result<Option<String>, StorageError> {
        readable(self.reader.get(&schema::NAME_TEXTS, &(kind as u8, num)))
    }

    /// The number of a name, past all caches.
    pub fn number(&self, kind: InternedKind, name: &str) -> Result<Option<u64>, StorageError> {
        readable(self.reader.get(&schema::NAME_NUMS, &(kind as u8, name.to_owned())))
    }

    /// The id of a room.
    pub fn room_id(&self, room: RoomNum) -> Result<Option<String>, StorageError> {
        self.name(InternedKind::Room, room.0)
    }

    /// The id of a user.
    pub fn user_id(&self, user: UserNum) -> Result<Option<String>, StorageError> {
        self.name(InternedKind::User, user.0)
    }

    /// A text.
    pub fn text(&self, text: TextNum) -> Result<Option<String>, StorageError> {
        self.name(InternedKind::Text, u64::from(text.0))
    }

    /// The number of a text.
    pub fn text_num(&self, text: &str) -> Result<Option<TextNum>, StorageError> {
        let num = self.number(InternedKind::Text, text)?;
        Ok(num.and_then(|num| u32::try_from(num).ok()).map(TextNum))
    }

    /// The number of a user.
    pub fn user_num(&self, user_id: &str) -> Result<Option<UserNum>, StorageError> {
        Ok(self.number(InternedKind::User, user_id)?.map(UserNum))
    }

    /// Whether the room is on its way out, so that its rows need not agree any more.
    pub fn is_going(&self, room: RoomNum) -> bool {
        self.seen.going.contains(&room)
    }

    /// Expects a loose value to be JSON.
    pub fn expect_json(&mut self, value: &[u8]) {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok();
        self.expect(is_json, "the value is not JSON");
    }

    /// Expects a user's number to have a name.
    pub fn expect_user(&mut self, user: UserNum) -> Result<bool, StorageError> {
        let known = self.user_id(user)?.is_some();
        Ok(self.expect(known, &format!("user number {} has no name", user.0)))
    }
}

/// Nothing in place of what cannot be read.
pub(super) fn readable<T>(read: Result<Option<T>, StorageError>) -> Result<Option<T>, StorageError> {
    match read {
        Err(StorageError::Corrupt(_)) => Ok(None),
        read => read,
    }
}

fn raw_key<K: Key, V: Value>(keyspace: &Keyspace<K, V>, key: &K) -> RestOfKey {
    RestOfKey(encode_key(keyspace, key).split_off(1))
}
