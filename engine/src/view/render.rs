//! Events as clients get them: the event's own part is spliced once and then copied; `unsigned` is written for who asks.
//!
//! Invariant: an event without relations, redaction, transaction or earlier state costs no read; what is bundled with an
//! event is what the asker may see whole; what they may see no more of than its redacted form is written so. On an error,
//! what was appended is to be thrown away with the rest of the answer.
//! Not here: whether the asker may see the event itself, see [`Renderer::may_see`].
//! Specification: client-server API, "Room event format" (`UnsignedData`), "Aggregations of child events".

mod bundle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::bundle::{Bundle, Bundles};
use crate::{
    core::{
        event::{ClientFormat, write_client_event},
        json::{members, write_string, write_unsigned},
        num::{RoomNum, StateKeyId, TextNum, UserNum},
    },
    error::Result,
    room::{Event, visibility::Viewer},
    store::{Reader, StorageError, schema::EventStatus},
};

/// Who is shown an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub user: UserNum,
    /// The device, which is told the transaction ids of what it sent.
    pub device: Option<TextNum>,
}

/// What comes with an event in `unsigned`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// What belongs to an event in a timeline.
    Timeline,
    /// What belongs to an event inside another: no earlier content, and no further event.
    Nested,
    /// What belongs to an entry of a room's state: nothing that depends on who asks.
    State,
}

/// Writes events of one room for one asker.
pub(crate) struct Renderer<'r> {
    reader: &'r Reader,
    room: RoomNum,
    format: ClientFormat,
    viewer: Option<Viewer<'r>>,
    device: Option<TextNum>,
    now_ms: u64,
    /// `{"room_id":"…",` for the formats that have it.
    opening: Vec<u8>,
    /// Whether something was written that others may be shown otherwise, or not at all.
    is_personal: bool,
}

impl<'r> Renderer<'r> {
    /// A renderer for `asker`; without one, nothing is said that depends on who asks.
    pub fn new(
        reader: &'r Reader,
        room: RoomNum,
        format: ClientFormat,
        asker: Option<Asker>,
    ) -> Result<Self, StorageError> {
        let viewer = asker.map(|asker| Viewer::new(reader, room, asker.user)).transpose()?;
        Self::with_viewer(reader, room, format, viewer, asker.and_then(|asker| asker.device))
    }

    /// A renderer for a viewer that is there already.
    pub fn with_viewer(
        reader: &'r Reader,
        room: RoomNum,
        format: ClientFormat,
        viewer: Option<Viewer<'r>>,
        device: Option<TextNum>,
    ) -> Result<Self, StorageError> {
        let mut opening = b"{".to_vec();
        if format == ClientFormat::Room {
            opening.extend_from_slice(b"\"room_id\":");
            write_string(&mut opening, &reader.room_id(room)?);
            opening.push(b',');
        }
        let now_ms = reader.shared.clock.now_ms();
        Ok(Self { reader, room, format, viewer, device, now_ms, opening, is_personal: false })
    }

    /// Whether the asker may see the event; all may be seen when nobody asks.
    pub fn may_see(&mut self, event: &Event) -> Result<bool, StorageError> {
        self.viewer.as_mut().map_or(Ok(true), |viewer| viewer.may_see(event))
    }

    /// Whether the asker may see the event, and not only its redacted form.
    fn may_see_whole(&mut self, event: &Event) -> Result<bool, StorageError> {
        self.viewer.as_mut().map_or(Ok(true), |viewer| viewer.may_see_whole(event))
    }

    /// Whether something was written that others may be shown otherwise, or not at all, even if they are in the room at
    /// these events as the asker is: transaction ids, and what hangs on what one may see.
    pub fn is_personal(&self) -> bool {
        self.is_personal
    }

    /// The viewer, when there is an asker.
    pub fn viewer(&mut self) -> Option<&mut Viewer<'r>> {
        self.viewer.as_mut()
    }

    /// Appends events as they stand in a timeline, with commas between them.
    pub fn write_timeline(&mut self, out: &mut Vec<u8>, events: &[Arc<Event>]) -> Result<()> {
        let bundles = match self.format {
            ClientFormat::Stripped => Bundles::default(),
            ClientFormat::Sync | ClientFormat::Room | ClientFormat::Federation => {
                Bundles::load(self, events)?
            }
        };
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write(out, event, Detail::Timeline, bundles.get(event.num))?;
        }
        Ok(())
    }

    /// Appends entries of the room's state, with commas between them.
    pub fn write_state(&mut self, out: &mut Vec<u8>, events: &[Arc<Event>]) -> Result<()> {
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write(out, event, Detail::State, None)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        event: &Arc<Event>,
        detail: Detail,
        bundle: Option<&Bundle>,
    ) -> Result<()> {
        let redacted = match &mut self.viewer {
            Some(viewer) => viewer.redacted(event)?,
            None => None,
        };
        self.is_personal |= redacted.is_some();
        let shown: &Event = redacted.as_ref().unwrap_or(event);
        match self.format {
            ClientFormat::Sync | ClientFormat::Room => {
                let json = shown.client_json()?;
                out.reserve(self.opening.len() + json.len() + UNSIGNED_BYTES);
                out.extend_from_slice(&self.opening);
                // Behind the opening brace, which is always there.
                out.extend_from_slice(json.get(1..).unwrap_or_default());
            }
            ClientFormat::Stripped => return self.write_stored(out, shown),
            ClientFormat::Federation => {
                self.write_stored(out, shown)?;
                // The closing brace, before which `unsigned` belongs.
                out.pop();
            }
        }
        out.extend_from_slice(b",\"unsigned\":{\"age\":");
        write_unsigned(out, self.now_ms.saturating_sub(event.header.origin_server_ts));
        if let Some(viewer) = &mut self.viewer
            && detail != Detail::State
        {
            out.extend_from_slice(b",\"membership\":\"");
            out.extend_from_slice(viewer.membership_at(event.header.state_after)?.name().as_bytes());
            out.push(b'"');
            self.write_transaction(out, event);
        }
        // The redaction of a redaction is shown where that one is: there may be no end of them.
        if detail != Detail::Nested {
            self.write_redaction(out, event)?;
        }
        if detail == Detail::Timeline {
            self.write_replaced_state(out, event)?;
        }
        if let Some(bundle) = bundle {
            self.write_bundle(out, bundle)?;
        }
        out.extend_from_slice(b"}}");
        Ok(())
    }

    /// The event's own part in a format that few ask for, so that it is spliced each time.
    fn write_stored(&self, out: &mut Vec<u8>, event: &Event) -> Result<()> {
        write_client_event(out, event.stored("")?, self.format, None)
            .map_err(|error| StorageError::Corrupt(format!("event {}: {error}", event.event_id)))?;
        Ok(())
    }

    fn write_transaction(&mut self, out: &mut Vec<u8>, event: &Event) {
        let Some((device, transaction)) = &event.header.transaction else { return };
        let is_sender = self.viewer.as_ref().is_some_and(|viewer| viewer.user == event.header.sender);
        if is_sender && self.device == Some(*device) {
            self.is_personal = true;
            out.extend_from_slice(b",\"transaction_id\":");
            write_string(out, transaction);
        }
    }

    fn write_redaction(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<()> {
        let Some(redaction) = event.header.redacted_by else { return Ok(()) };
        self.is_personal = true;
        let redaction = self.reader.event(redaction)?;
        // What the room's policy server has refused of history is shown to nobody, though it takes effect.
        if redaction.header.status != EventStatus::SoftFailed && self.may_see(&redaction)? {
            out.extend_from_slice(b",\"redacted_because\":");
            self.write(out, &redaction, Detail::Nested, None)?;
        }
        Ok(())
    }

    /// What a state event took the place of: its id always, its content if the asker may see it.
    fn write_replaced_state(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<()> {
        let header = &event.header;
        let Some(state_key) = header.state_key else { return Ok(()) };
        self.is_personal = true;
        let key = StateKeyId::new(header.kind, state_key);
        let Some(before) = self.reader.state_num_at(header.room, header.state_before, key)? else {
            return Ok(());
        };
        let before = self.reader.event(before)?;
        out.extend_from_slice(b",\"replaces_state\":");
        write_string(out, &before.event_id);
        let may_see = match &mut self.viewer {
            Some(viewer) => viewer.may_see_replaced(event, &before)?,
            None => true,
        };
        if may_see {
            let content = members(&before.json).flatten().find(|member| member.key == b"content");
            if let Some(content) = content {
                out.extend_from_slice(b",\"prev_content\":");
                out.extend_from_slice(content.value);
            }
            out.extend_from_slice(b",\"prev_sender\":");
            write_string(out, &self.reader.user_id(before.header.sender)?);
        }
        Ok(())
    }

    fn write_bundle(&mut self, out: &mut Vec<u8>, bundle: &Bundle) -> Result<()> {
        self.is_personal = true;
        out.extend_from_slice(b",\"m.relations\":{");
        let start = out.len();
        if let Some(replacement) = &bundle.replacement {
            out.extend_from_slice(b"\"m.replace\":");
            self.write(out, replacement, Detail::Nested, None)?;
        }
        if !bundle.references.is_empty() {
            separate(out, start);
            out.extend_from_slice(b"\"m.reference\":{\"chunk\":[");
            for (index, event_id) in bundle.references.iter().enumerate() {
                out.extend_from_slice(if index > 0 { b",{\"event_id\":" } else { b"{\"event_id\":" });
                write_string(out, event_id);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}");
        }
        if let Some(thread) = &bundle.thread {
            separate(out, start);
            out.extend_from_slice(b"\"m.thread\":{\"latest_event\":");
            self.write(out, &thread.latest, Detail::Timeline, thread.latest_bundle.as_deref())?;
            out.extend_from_slice(b",\"count\":");
            write_unsigned(out, thread.count);
            out.extend_from_slice(b",\"current_user_participated\":");
            out.extend_from_slice(if thread.participated { b"true" } else { b"false" });
            out.push(b'}');
        }
        out.push(b'}');
        Ok(())
    }
}

/// What `unsigned` takes as a rule: age, membership, braces.
const UNSIGNED_BYTES: usize = 64;

fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.push(b',');
    }
}
