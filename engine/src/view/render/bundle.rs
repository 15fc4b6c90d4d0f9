//! What is bundled with the events of a page: their latest replacement, references and threads.
//!
//! Invariant: a page without relations costs two scans that find nothing. `m.annotation` is not bundled: the
//! specification leaves aggregating reactions to clients (since v1.3).
//! Specification: client-server API, "Server-side aggregation of" `m.replace`, `m.thread`, `m.reference` relationships.

use std::{collections::HashMap, sync::Arc};

use super::Renderer;
use crate::{
    core::num::EventNum,
    error::Result,
    room::{
        Event,
        relations::{Related, RelationClass, relation_of},
    },
    store::{Direction, Positioned, schema, schema::Thread},
};

/// How many of the last edits of an event are looked at for the latest: by timestamp it is not always the last that came,
/// but never far from it unless a server lies about the time.
const EDITS_MAX: usize = 100;
/// How many references are listed with an event: a poll of a large room. Beyond, `/relations` has them.
const REFERENCES_MAX: usize = 1000;
/// How many of the last events of a thread are counted for an asker who may not see all of them.
const THREAD_EVENTS_MAX: usize = 1000;

/// What is bundled with one event.
#[derive(Default)]
pub(super) struct Bundle {
    pub replacement: Option<Arc<Event>>,
    pub references: Vec<Arc<str>>,
    pub thread: Option<ThreadBundle>,
}

/// A thread as it is bundled with its root.
pub(super) struct ThreadBundle {
    pub latest: Arc<Event>,
    pub latest_bundle: Option<Box<Bundle>>,
    pub count: u64,
    pub participated: bool,
}

/// What is bundled with the events of a page.
#[derive(Default)]
pub(super) struct Bundles(HashMap<EventNum, Bundle>);

impl Bundles {
    /// What is bundled with this event.
    pub fn get(&self, event: EventNum) -> Option<&Bundle> {
        self.0.get(&event)
    }

    /// Everything for `events`.
    pub fn load(renderer: &mut Renderer<'_>, events: &[Arc<Event>]) -> Result<Self> {
        let mut bundles = Self::default();
        let targets = targets(events);
        if targets.is_empty() {
            return Ok(bundles);
        }
        bundles.add_related(renderer, events, &targets)?;
        for (root, thread) in renderer.reader.threads_of(renderer.room, &targets)? {
            if let Some(thread) = load_thread(renderer, root, &thread)? {
                bundles.0.entry(root).or_default().thread = Some(thread);
            }
        }
        Ok(bundles)
    }

    fn add_related(
        &mut self,
        renderer: &mut Renderer<'_>,
        events: &[Arc<Event>],
        targets: &[EventNum],
    ) -> Result<()> {
        let reader = renderer.reader;
        let related = reader.relations_to(renderer.room, RelationClass::Bundled, targets)?;
        if related.is_empty() {
            return Ok(());
        }
        let replace = reader.text_num("m.replace")?;
        let mut by_target: HashMap<EventNum, (Vec<Related>, Vec<Related>)> = HashMap::new();
        for related in related {
            let (edits, references) = by_target.entry(related.target).or_default();
            let is_edit = Some(related.relation.rel_type) == replace;
            if is_edit { edits.push(related) } else { references.push(related) }
        }
        for event in events {
            let Some((edits, references)) = by_target.get(&event.num) else { continue };
            let replacement = latest_replacement(renderer, event, edits)?;
            let references = visible(renderer, references.iter().take(REFERENCES_MAX))?;
            if replacement.is_some() || !references.is_empty() {
                let bundle = self.0.entry(event.num).or_default();
                bundle.replacement = replacement;
                bundle.references = references.iter().map(|event| event.event_id.clone()).collect();
            }
        }
        Ok(())
    }
}

/// The numbers of the events that can have something bundled, ascending: state events do not.
fn targets(events: &[Arc<Event>]) -> Vec<EventNum> {
    let plain = events.iter().filter(|event| event.header.state_key.is_none());
    let mut targets: Vec<EventNum> = plain.map(|event| event.num).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Those of the events that count for the asker: visible and not redacted, for others or for the asker alone.
fn visible<'a>(
    renderer: &mut Renderer<'_>,
    related: impl Iterator<Item = &'a Related>,
) -> Result<Vec<Arc<Event>>> {
    let nums: Vec<EventNum> = related.map(|related| related.relation.event).collect();
    let mut visible = Vec::with_capacity(nums.len());
    for event in renderer.reader.events(&nums)? {
        if event.header.redacted_by.is_none() && renderer.may_see_whole(&event)? {
            visible.push(event);
        }
    }
    Ok(visible)
}

/// The most recent valid replacement: "Validity of replacement events".
fn latest_replacement(
    renderer: &mut Renderer<'_>,
    original: &Event,
    edits: &[Related],
) -> Result<Option<Arc<Event>>> {
    let header = &original.header;
    if edits.is_empty() || header.redacted_by.is_some() {
        return Ok(None);
    }
    if relation_of(&original.pdu()?.content).is_some_and(|(rel_type, _)| rel_type == "m.replace") {
        return Ok(None);
    }
    let same = |edit: &&Related| edit.relation.sender == header.sender && edit.relation.kind == header.kind;
    let last = edits.iter().rev().filter(same).take(EDITS_MAX);
    let mut latest: Option<Arc<Event>> = None;
    for edit in visible(renderer, last)? {
        let pdu = edit.pdu()?;
        // Of an encrypted event the new content is in the encrypted part.
        let is_complete = &*pdu.kind == "m.room.encrypted"
            || pdu.content.get("m.new_content").is_some_and(serde_json::Value::is_object);
        let age = |event: &Event| (event.header.origin_server_ts, event.event_id.clone());
        let is_later = latest.as_ref().is_none_or(|latest| age(latest) < age(&edit));
        if is_complete && edit.header.state_key.is_none() && is_later {
            latest = Some(edit);
        }
    }
    Ok(latest)
}

fn load_thread(
    renderer: &mut Renderer<'_>,
    root: EventNum,
    thread: &Positioned<Thread>,
) -> Result<Option<ThreadBundle>> {
    let reader = renderer.reader;
    let latest = reader.event(thread.value.latest)?;
    let ignores_anyone = renderer.viewer().is_some_and(|viewer| viewer.ignores_anyone());
    let (latest, count) = if !ignores_anyone && renderer.may_see_whole(&latest)? {
        (latest, thread.value.count)
    } else {
        let mut related = Vec::new();
        let key = (renderer.room, RelationClass::Thread as u8, root);
        reader.scan(&schema::RELATIONS, &key, Direction::Backward, |(_, _, target, pos), relation| {
            related.push(Related { target, pos, relation });
            related.len() < THREAD_EVENTS_MAX
        })?;
        let seen = visible(renderer, related.iter())?;
        let count = seen.len() as u64;
        let Some(latest) = seen.into_iter().next() else { return Ok(None) };
        (latest, count)
    };
    let participated = match renderer.viewer().map(|viewer| viewer.user) {
        None => false,
        Some(user) => {
            reader.event(root)?.header.sender == user
                || reader.has(&schema::THREAD_USERS, &(renderer.room, root, user))?
        }
    };
    // Events of a thread are no roots themselves, so there is nothing further to bundle below.
    let mut below = Bundles::default();
    below.add_related(renderer, std::slice::from_ref(&latest), &[latest.num])?;
    let latest_bundle = below.0.remove(&latest.num).map(Box::new);
    Ok(Some(ThreadBundle { latest, latest_bundle, count, participated }))
}
