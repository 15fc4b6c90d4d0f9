//! The removal of history before a position.
//!
//! Invariant: nothing that stays refers to what goes. So each step first looks at what stays and has not been looked at:
//! edges to what goes are cut, receipts on it are removed. Only when there is no more of that does something go.

use std::{collections::HashSet, sync::Arc};

use super::{LOOKED_AT_PER_REMOVED, event, note_removed};
use crate::{
    core::num::{EventNum, NodeId, RoomNum, StreamPos},
    error::Result,
    room::{Event, RoomCtx, accept::rewrite_header, citations, gap},
    store::{
        Direction, Positioned, StorageError, Tx, schema,
        schema::{EventHeader, EventStatus, HistoryPurge, Purge, PurgeWork},
    },
};

/// One step's view of the room.
struct Step<'a> {
    tx: &'a mut Tx,
    room: RoomNum,
    extremities: Vec<EventNum>,
    before: StreamPos,
    depth: u64,
    /// How many events it may remove.
    limit: usize,
    /// Events that are known to stay as they are.
    staying: HashSet<EventNum>,
}

/// Does a piece of it.
pub(super) fn step(
    tx: &mut Tx,
    room_id: &str,
    mut at: HistoryPurge,
    limit: usize,
    purge: &mut Purge,
) -> Result<PurgeWork> {
    let room = RoomCtx::load(tx, room_id)?;
    let extremities: Vec<EventNum> = room.head.extremities.iter().map(|(num, _)| *num).collect();
    let (before, depth) = (at.before, at.depth);
    let mut step = Step { tx, room: room.num, extremities, before, depth, limit, staying: HashSet::new() };
    for num in step.extremities.clone() {
        step.cut_edges(num)?;
    }
    let all_seen = step.look_at_kept(&mut at)?
        && step.look_at_kept_off_timeline(&mut at)?
        && step.look_at_receipts(&mut at)?
        && step.close_gaps()?;
    let is_over =
        all_seen && step.remove_events(&mut at, purge)? && step.remove_off_timeline(&mut at, purge)?;
    if !is_over {
        return Ok(PurgeWork::History(at));
    }
    let room = step.room;
    tx.shared.memo.purges.0.lock().remove(&room);
    Ok(PurgeWork::Nodes(NodeId(0)))
}

impl Step<'_> {
    /// Whether an event is of what goes, or becomes an outlier.
    fn is_history(&self, num: EventNum, header: &Positioned<EventHeader>) -> bool {
        if self.extremities.contains(&num) {
            return false;
        }
        match header.value.status {
            EventStatus::Accepted => header.pos < self.before,
            _ => header.value.depth < self.depth,
        }
    }

    /// Looks at events of the timeline that stay. Returns whether all have been looked at; so do the others.
    fn look_at_kept(&mut self, at: &mut HistoryPurge) -> Result<bool> {
        let look_at = LOOKED_AT_PER_REMOVED * self.limit;
        let mut found = Vec::new();
        let (start, end) = ((self.room, at.kept), RoomNum(self.room.0 + 1));
        self.tx.scan_between(&schema::TIMELINE, &start, &end, Direction::Forward, |(_, pos), num| {
            found.push((pos, num));
            found.len() < look_at
        })?;
        for (pos, num) in &found {
            self.cut_edges(*num)?;
            self.staying.insert(*num);
            at.kept = StreamPos(pos.0.saturating_add(1));
        }
        Ok(found.len() < look_at)
    }

    fn look_at_kept_off_timeline(&mut self, at: &mut HistoryPurge) -> Result<bool> {
        let look_at = LOOKED_AT_PER_REMOVED * self.limit;
        let found = self.off_timeline(at.kept_off_timeline, look_at)?;
        for num in &found {
            self.cut_edges(*num)?;
            at.kept_off_timeline = EventNum(num.0 + 1);
        }
        Ok(found.len() < look_at)
    }

    fn off_timeline(&self, from: EventNum, limit: usize) -> Result<Vec<EventNum>, StorageError> {
        let mut found = Vec::new();
        let (start, end) = ((self.room, from), RoomNum(self.room.0 + 1));
        self.tx.scan_between(&schema::OFF_TIMELINE, &start, &end, Direction::Forward, |(_, num), ()| {
            found.push(num);
            found.len() < limit
        })?;
        Ok(found)
    }

    /// Cuts the event's edges to what goes: of previous events all of it, of auth events messages, which only what was
    /// rejected can have named.
    fn cut_edges(&mut self, num: EventNum) -> Result<()> {
        let Some(header) = self.tx.get(&schema::EVENT_HEADERS, &num)? else { return Ok(()) };
        let Positioned { value: mut header, .. } = header;
        let counts = (header.prev.len(), header.auth.len());
        header.prev = self.edges_left(&header.prev, |_| true)?;
        let auth_left = self.edges_left(&header.auth, |auth| auth.state_key.is_none())?;
        let named = std::mem::replace(&mut header.auth, auth_left);
        if counts != (header.prev.len(), header.auth.len()) {
            citations::cut(self.tx, num, &named, &header);
            let event = self.tx.event(num)?;
            rewrite_header(self.tx, &event, header)?;
        }
        Ok(())
    }

    fn edges_left(
        &mut self,
        edges: &[EventNum],
        goes: impl Fn(&EventHeader) -> bool,
    ) -> Result<Vec<EventNum>, StorageError> {
        let mut left = Vec::with_capacity(edges.len());
        for edge in edges {
            if self.staying.contains(edge) {
                left.push(*edge);
                continue;
            }
            let Some(header) = self.tx.get(&schema::EVENT_HEADERS, edge)? else { continue };
            if !(self.is_history(*edge, &header) && goes(&header.value)) {
                left.push(*edge);
            }
        }
        Ok(left)
    }

    /// Removes receipts on what goes. Whoever had one has read all of that, and nothing of what stays.
    fn look_at_receipts(&mut self, at: &mut HistoryPurge) -> Result<bool> {
        let look_at = LOOKED_AT_PER_REMOVED * self.limit;
        let mut found = Vec::new();
        let (start, end) = ((self.room, at.receipts), RoomNum(self.room.0 + 1));
        self.tx.scan_between(&schema::RECEIPT_STREAM, &start, &end, Direction::Forward, |(_, pos), of| {
            found.push((pos, of));
            found.len() < look_at
        })?;
        for (pos, (user, kind, thread)) in &found {
            let key = (self.room, *user, *kind, *thread);
            let receipt = self.tx.get(&schema::RECEIPTS, &key)?;
            let goes = receipt.is_some_and(|receipt| {
                receipt.value.event_pos < self.before && !self.extremities.contains(&receipt.value.event)
            });
            if goes {
                self.tx.delete(&schema::RECEIPTS, &key);
                self.tx.delete(&schema::RECEIPT_STREAM, &(self.room, *pos));
            }
            at.receipts = StreamPos(pos.0.saturating_add(1));
        }
        Ok(found.len() < look_at)
    }

    /// Forgets what is missing in the history that goes: it is not asked for any more. Forgets how the state changed there
    /// beside the events.
    fn close_gaps(&mut self) -> Result<bool> {
        let mut missing = Vec::new();
        self.tx.scan(
            &schema::BACKWARD_EXTREMITIES,
            &self.room,
            Direction::Forward,
            |(_, event_id): (RoomNum, String), row| {
                missing.push((event_id, row));
                true
            },
        )?;
        for (event_id, row) in missing {
            let follower = self.tx.get(&schema::EVENT_HEADERS, &row.value.follower)?;
            let stays = row.pos >= self.before
                && follower.is_some_and(|header| !self.is_history(row.value.follower, &header));
            if !stays {
                self.tx.delete(&schema::BACKWARD_EXTREMITIES, &(self.room, event_id));
                gap::close_if_filled(self.tx, self.room, row.pos)?;
            }
        }
        self.forget_state_changes()?;
        Ok(true)
    }

    fn forget_state_changes(&mut self) -> Result<(), StorageError> {
        let mut found: Vec<(RoomNum, StreamPos)> = Vec::new();
        let (start, end) = ((self.room, StreamPos(i64::MIN)), (self.room, self.before));
        self.tx.scan_between(&schema::STATE_CHANGES, &start, &end, Direction::Forward, |key, _| {
            found.push(key);
            true
        })?;
        found.iter().for_each(|key| self.tx.delete(&schema::STATE_CHANGES, key));
        Ok(())
    }

    /// Removes events of the timeline, the latest first: what follows others goes before them.
    fn remove_events(&mut self, at: &mut HistoryPurge, purge: &mut Purge) -> Result<bool> {
        let limit = self.limit;
        let mut found = Vec::new();
        let (start, end) = ((self.room, StreamPos(i64::MIN)), (self.room, at.events));
        self.tx.scan_between(&schema::TIMELINE, &start, &end, Direction::Backward, |(_, pos), num| {
            found.push((pos, num));
            found.len() < limit
        })?;
        let nums: Vec<EventNum> = found.iter().map(|(_, num)| *num).collect();
        for event in self.tx.events(&nums)? {
            if !self.extremities.contains(&event.num) {
                self.take_away(&event, purge)?;
            }
            at.events = event.pos();
        }
        Ok(found.len() < limit)
    }

    fn remove_off_timeline(&mut self, at: &mut HistoryPurge, purge: &mut Purge) -> Result<bool> {
        let limit = self.limit;
        let found = self.off_timeline(at.off_timeline, limit)?;
        for event in self.tx.events(&found)? {
            let header = Positioned { pos: event.pos(), value: event.header.clone() };
            if self.is_history(event.num, &header) {
                self.take_away(&event, purge)?;
            }
            at.off_timeline = EventNum(event.num.0 + 1);
        }
        Ok(found.len() < limit)
    }

    /// Removes a message; leaves a state event, or a redaction that is needed, as an outlier.
    fn take_away(&mut self, event: &Arc<Event>, purge: &mut Purge) -> Result<()> {
        let stays = event.header.state_key.is_some() || event::is_applied_redaction(self.tx, event)?;
        if stays && event.header.status == EventStatus::Outlier {
            return Ok(());
        }
        event::remove_relations(self.tx, event)?;
        if stays {
            event::leave_as_outlier(self.tx, event)?;
        } else {
            event::remove_early_redaction(self.tx, event)?;
            event::remove(self.tx, event)?;
            self.let_redaction_wait(event)?;
        }
        note_removed(purge, event.num);
        Ok(())
    }

    /// If what goes is redacted by what stays, sees to it that it is redacted should it come again.
    fn let_redaction_wait(&mut self, event: &Event) -> Result<()> {
        let Some(redaction) = event.header.redacted_by else { return Ok(()) };
        let Some(header) = self.tx.get(&schema::EVENT_HEADERS, &redaction)? else { return Ok(()) };
        if !self.is_history(redaction, &header) {
            let key = (self.room, event.event_id.to_string());
            self.tx.put(&schema::EARLY_REDACTIONS, &key, &vec![redaction]);
        }
        Ok(())
    }
}
