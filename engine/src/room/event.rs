//! A stored event: its header, its bytes, and what has been parsed of them once and for all.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{merging::DUMMY_EVENT, redactions};
use crate::{
    core::{
        event::{
            ClientFormat, JsonObject, Pdu, StoredEvent, redact, verify_content_hash_of_json,
            write_client_event,
        },
        json::write_object,
        num::{EventNum, RoomNum, StateKeyId, StreamPos, TextNum, UserNum},
        power_levels::PowerLevels,
        resolve::AuthFacts,
        version::{ROOM_VERSIONS, RoomVersion},
    },
    store::{
        InternedKind, Positioned, Reader, StorageError, schema,
        schema::{EventHeader, EventStatus},
    },
};

/// What an event costs in the cache besides its JSON.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// An event as it is stored. Shared, and never changed once its position is known.
#[derive(Debug)]
pub struct Event {
    /// Its number.
    pub num: EventNum,
    /// Its id.
    pub event_id: Arc<str>,
    /// What walks and filters read.
    pub header: EventHeader,
    /// Its canonical JSON; redacted if it was.
    pub json: Bytes,
    pos: OnceLock<StreamPos>,
    pdu: OnceLock<Arc<Pdu>>,
    power_levels: OnceLock<Arc<PowerLevels>>,
    client_json: OnceLock<Bytes>,
    auth_facts: OnceLock<Arc<AuthFacts>>,
    told: OnceLock<Told>,
}

/// Whether clients are told of events of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Always,
    Never,
    /// As long as what it redacts is redacted, or would be.
    IfItRedacts,
}

impl Event {
    pub(crate) fn new(num: EventNum, event_id: Arc<str>, header: EventHeader, json: Bytes) -> Self {
        Self {
            num,
            event_id,
            header,
            json,
            pos: OnceLock::new(),
            pdu: OnceLock::new(),
            power_levels: OnceLock::new(),
            client_json: OnceLock::new(),
            auth_facts: OnceLock::new(),
            told: OnceLock::new(),
        }
    }

    /// Its place in the stream; the greatest while its batch is not staged.
    pub fn pos(&self) -> StreamPos {
        self.pos.get().copied().unwrap_or(StreamPos::MAX)
    }

    /// Told once, when the position is assigned.
    pub(crate) fn set_position(&self, pos: StreamPos) {
        let _ = self.pos.set(pos);
    }

    pub(crate) fn set_pdu(&self, pdu: Arc<Pdu>) {
        let _ = self.pdu.set(pdu);
    }

    /// Which entry of the state it is, if it is a state event.
    pub(crate) fn state_key_id(&self) -> Option<StateKeyId> {
        self.header.state_key_id()
    }

    /// Whether it follows more than its header has edges to: some of that was not here when it came, or was purged.
    pub(crate) fn lacks_prev_events(&self) -> Result<bool, StorageError> {
        let pdu = self.pdu()?;
        let named: HashSet<&Arc<str>> = pdu.prev_events.iter().collect();
        Ok(self.header.prev.len() < named.len())
    }

    /// The rules that it obeys.
    pub fn version(&self) -> Result<&'static RoomVersion, StorageError> {
        room_version(self.header.version)
    }

    /// The event with its content parsed; parsed on first use.
    ///
    /// Errors: [`StorageError::Corrupt`] when the stored bytes are not an event.
    pub fn pdu(&self) -> Result<Arc<Pdu>, StorageError> {
        if let Some(pdu) = self.pdu.get() {
            return Ok(pdu.clone());
        }
        let parsed = Pdu::from_stored(self.version()?, self.event_id.clone(), self.json.clone())
            .map_err(|error| StorageError::Corrupt(format!("event {}: {error}", self.event_id)))?;
        Ok(self.pdu.get_or_init(|| Arc::new(parsed)).clone())
    }

    /// The power levels that hold in the room with this create event while this is its `m.room.power_levels` (or, for
    /// the create event itself, while it has none); parsed on first use.
    pub fn power_levels(&self, create: &Event) -> Result<Arc<PowerLevels>, StorageError> {
        if let Some(levels) = self.power_levels.get() {
            return Ok(levels.clone());
        }
        let own = if self.num == create.num { None } else { Some(self.pdu()?) };
        let levels = PowerLevels::new(self.version()?, &*create.pdu()?, own.as_deref());
        Ok(self.power_levels.get_or_init(|| Arc::new(levels)).clone())
    }

    /// What state resolution reads of it; digested on first use.
    pub(crate) fn auth_facts(&self) -> Result<Arc<AuthFacts>, StorageError> {
        if let Some(facts) = self.auth_facts.get() {
            return Ok(facts.clone());
        }
        let header = &self.header;
        let rejected = header.status == EventStatus::Rejected;
        let facts = AuthFacts::new(
            self.pdu()?,
            self.num,
            &header.auth,
            header.auth_depth,
            rejected,
            self.state_key_id(),
        );
        Ok(self.auth_facts.get_or_init(|| Arc::new(facts)).clone())
    }

    /// Whether clients are not told of it, whoever they are: it only brings a room's ends together (see `merging`), or is a redaction
    /// that redacts nothing. What is neither is told apart by its type alone, once.
    pub(crate) fn is_withheld(&self, reader: &Reader) -> Result<bool, StorageError> {
        let told = match self.told.get() {
            Some(known) => *known,
            None => {
                let found = self.told_by_type(&reader.text(self.header.kind)?)?;
                *self.told.get_or_init(|| found)
            }
        };
        match told {
            Told::Always => Ok(false),
            Told::Never => Ok(true),
            Told::IfItRedacts => Ok(!redactions::is_told(reader, self)?),
        }
    }

    fn told_by_type(&self, kind: &str) -> Result<Told, StorageError> {
        Ok(match kind {
            DUMMY_EVENT if self.header.state_key.is_none() => Told::Never,
            // Where the authorisation rules judge redactions, nobody is given one that they do not allow.
            "m.room.redaction" if !self.version()?.redaction_auth_rule => Told::IfItRedacts,
            _ => Told::Always,
        })
    }

    /// What every client gets of the event, from the opening brace up to where `unsigned` and the closing brace belong;
    /// spliced on first use. Without `room_id`.
    ///
    /// Errors: [`StorageError::Corrupt`] when the stored bytes are not an event.
    pub(crate) fn client_json(&self) -> Result<&Bytes, StorageError> {
        if let Some(json) = self.client_json.get() {
            return Ok(json);
        }
        let mut json = Vec::new();
        write_client_event(&mut json, self.stored("")?, ClientFormat::Sync, None)
            .map_err(|error| StorageError::Corrupt(format!("event {}: {error}", self.event_id)))?;
        json.pop();
        Ok(self.client_json.get_or_init(|| Bytes::from(json.into_boxed_slice())))
    }

    /// What clients' formats of it are made from.
    pub(crate) fn stored<'a>(&'a self, room_id: &'a str) -> Result<StoredEvent<'a>, StorageError> {
        let redacts_in_content = self.version()?.redaction_v11;
        Ok(StoredEvent { event_id: &self.event_id, room_id, json: &self.json, redacts_in_content })
    }

    /// Whether another server told it without its content, as a redaction would leave it, and nothing redacted it here. The event is
    /// hashed.
    ///
    /// Errors: [`StorageError::Corrupt`] when the stored bytes are not an event.
    pub(crate) fn is_pruned(&self) -> Result<bool, StorageError> {
        let corrupt = |_| StorageError::Corrupt(format!("event {} is not JSON", self.event_id));
        Ok(self.header.redacted_by.is_none() && !verify_content_hash_of_json(&self.json).map_err(corrupt)?)
    }

    /// The JSON of its redacted form, canonical.
    ///
    /// Errors: [`StorageError::Corrupt`] when the stored bytes are not an event.
    pub(crate) fn redacted_json(&self) -> Result<Bytes, StorageError> {
        let corrupt = |_| StorageError::Corrupt(format!("event {} is not JSON", self.event_id));
        let object: JsonObject = serde_json::from_slice(&self.json).map_err(corrupt)?;
        let mut json = Vec::with_capacity(self.json.len());
        write_object(&mut json, &redact(self.version()?, &object));
        Ok(json.into())
    }

    /// A copy of it in its redacted form. Not for any cache: the event itself stays as it is.
    ///
    /// Errors: [`StorageError::Corrupt`] when the stored bytes are not an event.
    pub(crate) fn redacted(&self) -> Result<Self, StorageError> {
        let copy = Self::new(self.num, self.event_id.clone(), self.header.clone(), self.redacted_json()?);
        copy.set_position(self.pos());
        Ok(copy)
    }

    /// What it costs in the cache, in bytes.
    pub(crate) fn weight(&self) -> usize {
        // JSON counts three times: it may be parsed, and rendered.
        EVENT_OVERHEAD_BYTES + 3 * self.json.len()
    }
}

/// The room version with this index in the table of versions.
pub(crate) fn room_version(index: u8) -> Result<&'static RoomVersion, StorageError> {
    let version = ROOM_VERSIONS.get(usize::from(index)).copied();
    version.ok_or_else(|| StorageError::Corrupt(format!("room version number {index}")))
}

/// The index of a version in rows, which [`room_version`] reads.
pub(crate) fn version_index(version: &RoomVersion) -> u8 {
    ROOM_VERSIONS.iter().position(|known| known.id == version.id).unwrap_or_default() as u8
}

/// The stored form of a body: the id's length, the id, the JSON.
pub(crate) fn encode_body(event_id: &str, json: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(2 + event_id.len() + json.len());
    body.extend_from_slice(&(event_id.len() as u16).to_be_bytes());
    body.extend_from_slice(event_id.as_bytes());
    body.extend_from_slice(json);
    body.into()
}

/// The inverse of [`encode_body`]; `None` if the bytes are not a body.
pub(crate) fn decode_body(body: &Bytes) -> Option<(Arc<str>, Bytes)> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let event_id = std::str::from_utf8(rest.get(..length)?).ok()?;
    Some((event_id.into(), body.slice(2 + length..)))
}

fn assemble(num: EventNum, header: Positioned<EventHeader>, body: &Bytes) -> Result<Event, StorageError> {
    let (event_id, json) = decode_body(body)
        .ok_or_else(|| StorageError::Corrupt(format!("the body of event number {}", num.0)))?;
    let event = Event::new(num, event_id, header.value, json);
    // One of a transaction's own events does not know its position yet.
    if header.pos.placeholder_index().is_none() {
        event.set_position(header.pos);
    }
    Ok(event)
}

fn lost(num: EventNum) -> StorageError {
    StorageError::Corrupt(format!("event number {} is missing", num.0))
}

impl Reader {
    /// The event with this number; that it is missing is corruption.
    pub fn event(&self, num: EventNum) -> Result<Arc<Event>, StorageError> {
        if let Some(event) = self.remembered_event(num) {
            return Ok(event);
        }
        let header = self.get(&schema::EVENT_HEADERS, &num)?.ok_or_else(|| lost(num))?;
        let body = self.get(&schema::EVENT_BODIES, &num)?.ok_or_else(|| lost(num))?;
        let event = Arc::new(assemble(num, header, &body)?);
        self.remember_event(&event);
        Ok(event)
    }

    /// Many events, in their order, with at most two bulk reads.
    pub fn events(&self, nums: &[EventNum]) -> Result<Vec<Arc<Event>>, StorageError> {
        let found = self.find_events(nums)?;
        nums.iter().zip(found).map(|(num, event)| event.ok_or_else(|| lost(*num))).collect()
    }

    /// The same without those that are not there: for who remembers numbers of events that may have been purged since.
    pub(crate) fn events_left(&self, nums: &[EventNum]) -> Result<Vec<Arc<Event>>, StorageError> {
        Ok(self.find_events(nums)?.into_iter().flatten().collect())
    }

    fn find_events(&self, nums: &[EventNum]) -> Result<Vec<Option<Arc<Event>>>, StorageError> {
        let mut found: Vec<Option<Arc<Event>>> = nums.iter().map(|num| self.remembered_event(*num)).collect();
        let absent: Vec<EventNum> =
            nums.iter().zip(&found).filter(|(_, event)| event.is_none()).map(|(num, _)| *num).collect();
        if !absent.is_empty() {
            let headers = self.get_many(&schema::EVENT_HEADERS, absent.iter().copied())?;
            let bodies = self.get_many(&schema::EVENT_BODIES, absent.iter().copied())?;
            let mut loaded = absent.into_iter().zip(headers.into_iter().zip(bodies));
            for place in found.iter_mut().filter(|place| place.is_none()) {
                let Some((num, row)) = loaded.next() else { break };
                let (Some(header), body) = row else { continue };
                let event = Arc::new(assemble(num, header, &body.ok_or_else(|| lost(num))?)?);
                self.remember_event(&event);
                *place = Some(event);
            }
        }
        Ok(found)
    }

    /// The number of the event with this id, if it is known here.
    pub fn event_num(&self, event_id: &str) -> Result<Option<EventNum>, StorageError> {
        self.get(&schema::EVENT_NUMS, &event_id.to_owned())
    }

    /// The number of a room.
    pub fn room_num(&self, room_id: &str) -> Result<Option<RoomNum>, StorageError> {
        Ok(self.shared.interner.find(self, InternedKind::Room, room_id)?.map(RoomNum))
    }

    /// The number of a user.
    pub fn user_num(&self, user_id: &str) -> Result<Option<UserNum>, StorageError> {
        Ok(self.shared.interner.find(self, InternedKind::User, user_id)?.map(UserNum))
    }

    /// The number of a text.
    pub fn text_num(&self, text: &str) -> Result<Option<TextNum>, StorageError> {
        Ok(self.shared.interner.find(self, InternedKind::Text, text)?.map(|num| TextNum(num as u32)))
    }

    /// The id of a room.
    pub fn room_id(&self, room: RoomNum) -> Result<Arc<str>, StorageError> {
        self.shared.interner.name(self, InternedKind::Room, room.0)
    }

    /// The id of a user.
    pub fn user_id(&self, user: UserNum) -> Result<Arc<str>, StorageError> {
        self.shared.interner.name(self, InternedKind::User, user.0)
    }

    /// A text.
    pub fn text(&self, text: TextNum) -> Result<Arc<str>, StorageError> {
        self.shared.interner.name(self, InternedKind::Text, u64::from(text.0))
    }
}
