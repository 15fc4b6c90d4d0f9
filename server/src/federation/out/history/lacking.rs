//! Events that a server lacks of the history that it tells, though it tells what is less deep: a gap of its own. Others are asked for
//! them at once, since what comes later is placed below all that was taken in before.
//!
//! Invariant: a server gives the deepest of what is before the events that it is asked for. So of what is as deep as all pages go
//! nothing is missing where others had what one lacks; what is less deep is left to the next pages. What nobody has holds up nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use warren_engine::core::checked::PduCheck;
use warren_engine::core::event::Pdu;
use warren_engine::core::version::RoomVersion;
use warren_engine::view::federation::EventsNotInGraph;
use warren_engine::view::{CheckHistory, CheckPdus};

use super::{ANSWER_TIME_MAX, EVENTS_MAX, IN_VAIN, LEFT_BEHIND, MISSING_MAX, Sources, page_in_time};
use crate::http::ApiError;

/// How much deeper than a full page's last event one is at least that is taken to lack something: branches that were merged near the
/// page's end go on on the next one.
const BELOW_PAGE_MIN: u64 = 20;

/// Other servers that are asked for what one lacks. A client waits for them.
const OTHERS_MAX: usize = 3;

/// Events of the past as servers tell them.
#[derive(Default)]
pub struct Told {
    ids: HashSet<Arc<str>>,
    /// What is no event is told of as that by who takes it in.
    pages: Vec<(Bytes, Option<Pdu>)>,
}

impl Told {
    pub fn add(&mut self, version: &RoomVersion, page: Vec<Bytes>) {
        for json in page {
            let pdu = Pdu::parse_history(version, &json).ok();
            self.ids.extend(pdu.iter().map(|pdu| pdu.event_id.clone()));
            self.pages.push((json, pdu));
        }
    }

    pub fn has(&self, event_id: &str) -> bool {
        self.ids.contains(event_id)
    }

    /// Those of the events of which it has a copy that is not as it was signed. Of one that lacks a key nobody can tell yet. What
    /// a bad copy follows counts all the same.
    fn bad_copies(&self, sources: &Sources<'_>, wanted: &[Arc<str>]) -> Result<Vec<Arc<str>>, ApiError> {
        let (mut ids, mut copies) = (Vec::new(), Vec::new());
        for pdu in self.pdus().filter(|pdu| wanted.contains(&pdu.event_id)) {
            ids.push(pdu.event_id.clone());
            copies.push(pdu.json.clone());
        }
        let check = CheckHistory(CheckPdus { version: sources.version, pdus: &copies });
        let checks = sources.ctx.engine.read(&check)?;
        let refused =
            |(id, check): (Arc<str>, PduCheck)| matches!(check, PduCheck::Refused { .. }).then_some(id);
        Ok(ids.into_iter().zip(checks).filter_map(refused).collect())
    }

    pub fn all(&self) -> Vec<Bytes> {
        self.pages.iter().map(|(json, _)| json.clone()).collect()
    }

    /// Those that are as deep at least.
    fn down_to(&self, floor: u64) -> impl Iterator<Item = &Pdu> {
        self.pdus().filter(move |pdu| pdu.depth >= floor)
    }

    fn pdus(&self) -> impl Iterator<Item = &Pdu> {
        self.pages.iter().filter_map(|(_, pdu)| pdu.as_ref())
    }

    /// The depth down to which it goes.
    fn floor(&self) -> Option<u64> {
        self.pdus().map(|pdu| pdu.depth).min()
    }

    /// What may be deeper than the last of these and is not among them: of what was asked for, and of what they follow. Those come
    /// first that the deepest follow.
    fn ends(&self, asked: &[Arc<str>], is_full: bool) -> Vec<Arc<str>> {
        let Some(floor) = self.floor() else { return Vec::new() };
        let depth_min = floor.saturating_add(if is_full { BELOW_PAGE_MIN } else { 1 });
        let mut followers: HashMap<&Arc<str>, u64> = asked.iter().map(|id| (id, u64::MAX)).collect();
        for pdu in self.pdus() {
            for prev in &pdu.prev_events {
                let depth = followers.entry(prev).or_insert(pdu.depth);
                *depth = pdu.depth.min(*depth);
            }
        }
        let is_end = |(id, depth): &(&Arc<str>, u64)| *depth > depth_min && !self.has(id);
        let mut ends: Vec<(&Arc<str>, u64)> = followers.into_iter().filter(is_end).collect();
        ends.sort_unstable_by(|(one, depth), (other, of_other)| (of_other, one).cmp(&(depth, other)));
        ends.into_iter().map(|(id, _)| id.clone()).collect()
    }
}

/// What is told of the events that a server lacks.
#[derive(Default)]
pub struct Elsewhere {
    /// By the server that has told it, which may be the one that lacked it.
    told: Vec<(String, Told)>,
}

impl Elsewhere {
    pub fn is_nothing(&self) -> bool {
        self.told.is_empty()
    }

    /// Who else has told it.
    pub fn servers_beside(&self, server: &str) -> impl Iterator<Item = &String> {
        self.told.iter().map(|(other, _)| other).filter(move |other| **other != *server)
    }

    /// Which of the servers have told an event.
    pub fn who_told(&self, event_id: &str) -> impl Iterator<Item = &String> {
        self.told.iter().filter(move |(_, told)| told.has(event_id)).map(|(other, _)| other)
    }

    /// All of it together with what the server has told, as far down as all of them go.
    pub fn with(&self, told: &Told) -> Vec<Bytes> {
        let all = || self.told.iter().map(|(_, told)| told).chain([told]);
        let floor = all().filter_map(Told::floor).max().unwrap_or_default();
        all().flat_map(|told| told.down_to(floor)).map(|pdu| pdu.json.clone()).collect()
    }
}

/// Asks others for the events that a server lacks, as far as they are deeper than the last that it tells.
pub(super) async fn told_elsewhere(
    sources: &Sources<'_>,
    server: &str,
    (asked, is_full): (&[Arc<str>], bool),
    told: &Told,
) -> Result<Elsewhere, ApiError> {
    let (ctx, histories) = (sources.ctx, &sources.ctx.federation.histories);
    let mut elsewhere = Elsewhere::default();
    let Some(floor) = told.floor() else { return Ok(elsewhere) };
    let mut ends = ctx.engine.read(&EventsNotInGraph { event_ids: &told.ends(asked, is_full) })?;
    // What is less deep comes when the pages have come down to it.
    let is_deep = |depth: Option<u64>| depth.is_some_and(|depth| depth >= floor);
    ends.retain(|id| histories.depths.get(id).is_none_or(is_deep));
    ends.truncate(MISSING_MAX);
    // There may have been no place for it.
    let again = is_full.then_some(server);
    let beside = || sources.servers.iter().map(String::as_str).filter(|other| *other != server);
    let others = beside().filter(|other| !histories.is_silent(other));
    let others =
        others.filter(|other| ends.iter().any(|id| !histories.has_bad_copy(other, id))).take(OTHERS_MAX);
    let to_ask: Vec<&str> = again.into_iter().chain(others).collect();
    // Who is silent, or does not answer, may have it, and who gave a bad copy a good one by and by; of a full page nobody knows whether
    // there was a place for it.
    let has_none =
        |other: &str| !histories.is_silent(other) && !ends.iter().any(|id| histories.has_bad_copy(other, id));
    let mut has_all_told = beside().chain(again).all(has_none);
    let mut is_cut = false;
    for other in to_ask {
        let (mut bad, wanted): (Vec<Arc<str>>, Vec<Arc<str>>) =
            ends.iter().cloned().partition(|id| histories.has_bad_copy(other, id));
        if wanted.is_empty() {
            continue;
        }
        let page = page_in_time(ctx, other, sources.room_id, &wanted, ANSWER_TIME_MAX).await;
        let Ok(page) = page else {
            has_all_told = false;
            continue;
        };
        is_cut |= page.len() >= EVENTS_MAX;
        let page = sources.made_whole(other, page).await?;
        let mut found = Told::default();
        found.add(sources.version, page);
        for id in found.bad_copies(sources, &wanted)? {
            histories.bad_copies.note((other.to_owned(), id.clone()), LEFT_BEHIND);
            has_all_told = false;
            bad.push(id);
        }
        let mut is_help = false;
        for pdu in found.pdus().filter(|pdu| wanted.contains(&pdu.event_id)) {
            is_help |= pdu.depth >= floor;
            histories.depths.keep(pdu.event_id.clone(), Some(pdu.depth), LEFT_BEHIND);
        }
        ends.retain(|id| bad.contains(id) || !found.has(id));
        if is_help {
            elsewhere.told.push((other.to_owned(), found));
        }
    }
    if !is_cut {
        let time = if has_all_told { LEFT_BEHIND } else { IN_VAIN };
        ends.into_iter().for_each(|id| histories.depths.keep(id, None, time));
    }
    Ok(elsewhere)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::context::Context;

    fn event(body: &str, depth: u64, prev_events: &[&Arc<str>]) -> (Arc<str>, Bytes) {
        let prev_events: Vec<&str> = prev_events.iter().map(|id| &***id).collect();
        let json = json!({
            "type": "m.room.message", "sender": "@bob:there.example", "room_id": "!room:there.example", "depth": depth,
            "content": {}, "prev_events": prev_events, "auth_events": [], "origin_server_ts": 1,
            "hashes": {"sha256": body}, "signatures": {}
        });
        let json = Bytes::from(json.to_string());
        (Pdu::parse_history(version(), &json).unwrap().event_id, json)
    }

    fn version() -> &'static RoomVersion {
        RoomVersion::get("10").unwrap()
    }

    fn told(events: &[&(Arc<str>, Bytes)]) -> Told {
        let mut told = Told::default();
        told.add(version(), events.iter().map(|(_, json)| json.clone()).collect());
        told
    }

    #[test]
    fn what_is_below_the_last_event_of_a_page_is_left_to_the_next() {
        let (far, base) = (event("far", 30, &[]), event("base", 10, &[]));
        let near = event("near", 11, &[]);
        let (last, other) = (event("last", 12, &[&base.0]), event("other", 13, &[&near.0]));
        let first = event("first", 60, &[&far.0, &last.0, &other.0]);
        let page = told(&[&first, &other, &last]);
        assert_eq!(page.ends(std::slice::from_ref(&first.0), true), std::slice::from_ref(&far.0));
        // One that is not full has come to its end, and what its last event follows can wait.
        assert_eq!(page.ends(&[], false), std::slice::from_ref(&far.0));
        let all = told(&[&first, &other, &last, &base]);
        assert_eq!(all.ends(&[], false), [far.0, near.0]);
        let asked = event("asked", 1, &[]);
        assert_eq!(page.ends(std::slice::from_ref(&asked.0), true).first(), Some(&asked.0));
        assert!(told(&[]).ends(&[asked.0], false).is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_server_may_have_that_does_not_answer_is_asked_for_again_soon() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let (far, last) = (event("far", 30, &[]), event("last", 12, &[]));
        let first = event("first", 60, &[&far.0, &last.0]);
        let page = told(&[&first, &last]);
        // Nobody is there.
        let (server, other) = ("there.example", "127.0.0.1:1");
        let both = [server, other];
        for (names, is_silent, time) in
            [(&both[..1], false, LEFT_BEHIND), (&both[..], false, IN_VAIN), (&both[..], true, IN_VAIN)]
        {
            ctx.federation.histories.note_silence(other, is_silent);
            let servers: Vec<String> = names.iter().copied().map(str::to_owned).collect();
            let sources =
                Sources { ctx: &ctx, room_id: "!room:there.example", version: version(), servers: &servers };
            let begun = Instant::now();
            let elsewhere = told_elsewhere(&sources, server, (std::slice::from_ref(&first.0), false), &page);
            assert!(elsewhere.await.is_ok_and(|elsewhere| elsewhere.is_nothing()));
            let noted = ctx.federation.histories.depths.0.lock().remove(&far.0);
            let (until, depth) = noted.expect("it is left alone for a while");
            assert_eq!(depth, None);
            assert!(until >= begun + time && until <= Instant::now() + time, "{servers:?}");
        }
    }

    #[test]
    fn what_is_told_together_goes_down_to_where_the_shortest_page_ends() {
        let [one, two, three, four] = [1, 2, 3, 4].map(|depth| event("", depth, &[]));
        let page = told(&[&four, &two, &one]);
        let elsewhere = Elsewhere { told: vec![("other.example".to_owned(), told(&[&three, &two]))] };
        let mut whole = elsewhere.with(&page);
        whole.sort_unstable();
        let mut wanted = vec![two.1.clone(), two.1, three.1, four.1];
        wanted.sort_unstable();
        assert_eq!(whole, wanted);
    }
}
