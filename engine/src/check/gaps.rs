//! Gaps, partial states, purges: what a room lacks is noted where it lacks it.

use super::{
    pass::{Pass, Row, readable},
    snapshots::is_whole,
};
use crate::{
    core::{
        event::Pdu,
        num::{EventNum, RoomNum, StreamPos},
    },
    room::{
        RoomCtx,
        gap::{self, MissingPrev},
        room_version,
    },
    store::{
        Direction, Positioned, StorageError, schema,
        schema::{BackwardExtremity, EventStatus, PurgeWork},
    },
};

/// What has to be known of before all rooms are visited.
pub(super) fn purges() -> Vec<Pass> {
    vec![Pass::over(&schema::PURGES, |row, room, purge| {
        if !matches!(purge.work, PurgeWork::History(_) | PurgeWork::Nodes(_)) {
            row.seen.going.insert(room);
        }
        Ok(())
    })]
}

pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass::over_derived(&schema::OFF_TIMELINE, |row, (room, num), ()| {
            if row.is_going(room) {
                return Ok(());
            }
            let header = row.header(num)?.map(|header| header.value);
            let is_off =
                header.is_some_and(|header| header.room == room && header.status != EventStatus::Accepted);
            if !row.expect(is_off, "the event is another room's, in its timeline, or not there") {
                row.delete(&schema::OFF_TIMELINE, &(room, num));
            }
            Ok(())
        }),
        Pass::over_derived(&schema::BACKWARD_EXTREMITIES, backward_extremity),
        Pass::over_derived(&schema::GAPS, gap_row),
        Pass::over_derived(&schema::PARTIAL_STATES, |row, (room, pos), num| {
            if row.is_going(room) {
                return Ok(());
            }
            let is_partial = row.header(num)?.is_some_and(|header| {
                header.value.room == room && header.pos == pos && header.value.partial_state
            });
            if !row.expect(is_partial, "the event's state is not known in part only, or it stands elsewhere")
            {
                row.delete(&schema::PARTIAL_STATES, &(room, pos));
            }
            Ok(())
        }),
        Pass::over(&schema::STATE_CHANGES, |row, (room, pos), snapshot| {
            row.seen.uses_position(pos);
            let is_whole = row.is_going(room) || is_whole(row, room, snapshot)?;
            row.expect(is_whole, "the state is not whole");
            Ok(())
        }),
        Pass::over(&schema::PARTIAL_STRETCHES, |row, (room, start), end| {
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row
                .expect(there && start < end, "the room is not there, or the stretch ends before it begins")
            {
                row.delete(&schema::PARTIAL_STRETCHES, &(room, start));
            }
            Ok(())
        }),
        Pass::over(&schema::ENTRANCES, |row, room, _| {
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::ENTRANCES, &room);
            }
            Ok(())
        }),
        Pass::over(&schema::HIDDEN_OUTLIERS, |row, (room, num), ()| {
            let is_its =
                row.is_going(room) || row.header(num)?.is_some_and(|header| header.value.room == room);
            if !row.expect(is_its, "the event is not in the room") {
                row.delete(&schema::HIDDEN_OUTLIERS, &(room, num));
            }
            Ok(())
        }),
        Pass::over(&schema::HISTORY_STARTS, |row, room, _| {
            let there = row.is_going(room) || row.reader().has(&schema::ROOM_HEADS, &room)?;
            if !row.expect(there, "the room is not there") {
                row.delete(&schema::HISTORY_STARTS, &room);
            }
            Ok(())
        }),
    ]
}

/// What became of an event that is part of the room's graph here; nothing if it is not.
fn in_graph(row: &Row<'_>, room: RoomNum, num: EventNum) -> Result<Option<EventStatus>, StorageError> {
    let header = row.header(num)?.filter(|header| header.value.room == room && header.value.is_in_graph());
    Ok(header.map(|header| header.value.status))
}

/// An event that is missing is followed by one that is here, and is in a gap.
fn backward_extremity(
    row: &mut Row<'_>,
    (room, event_id): (RoomNum, String),
    found: Positioned<BackwardExtremity>,
) -> Result<(), StorageError> {
    if row.is_going(room) {
        return Ok(());
    }
    let follower = found.value.follower;
    let named = match (row.header(follower)?, row.body(follower)?) {
        (Some(header), Some((id, json))) if header.value.room == room => {
            let pdu = Pdu::from_stored(room_version(header.value.version)?, id, json);
            pdu.is_ok_and(|pdu| pdu.prev_events.iter().any(|prev| **prev == *event_id))
        }
        _ => false,
    };
    let known = row.event_num(&event_id)?.map(|num| in_graph(row, room, num)).transpose()?.flatten();
    let is_missing = named && known.is_none();
    if !row.expect(is_missing, "the event is not missing, or nothing follows it") {
        row.delete(&schema::BACKWARD_EXTREMITIES, &(room, event_id));
        return Ok(());
    }
    let gap = row.reader().has(&schema::GAPS, &(room, found.pos))?;
    if !row.expect(gap, "the gap that the event is missing in is not there") {
        mend_gap(row, room, found.pos)?;
    }
    Ok(())
}

/// Something is missing in a gap, and what is filled in next has a free place there.
fn gap_row(
    row: &mut Row<'_>,
    (room, pos): (RoomNum, StreamPos),
    free: StreamPos,
) -> Result<(), StorageError> {
    if row.is_going(room) {
        return Ok(());
    }
    let mut is_needed = false;
    row.reader().scan(
        &schema::BACKWARD_EXTREMITIES,
        &room,
        Direction::Forward,
        |_: (RoomNum, String), missing| {
            is_needed = missing.pos == pos;
            !is_needed
        },
    )?;
    if !row.expect(is_needed, "nothing is missing in the gap") {
        row.delete(&schema::GAPS, &(room, pos));
        return Ok(());
    }
    let (below, above) = gap::edges(row.reader(), room, pos)?;
    let is_free = free < above && below.is_none_or(|below| below < free);
    if !row.expect(is_free, "the place that is to be filled next is not in the gap") {
        mend_gap(row, room, pos)?;
    }
    Ok(())
}

/// Proposes that the gap goes on below what has been filled in of it.
fn mend_gap(row: &mut Row<'_>, room: RoomNum, pos: StreamPos) -> Result<(), StorageError> {
    let free = gap::next_free(row.reader(), room, pos)?;
    row.put(&schema::GAPS, &(room, pos), &free);
    Ok(())
}

/// Expects what an accepted event lacks to be noted.
pub(super) fn expect_of(
    row: &mut Row<'_>,
    num: EventNum,
    header: &Positioned<schema::EventHeader>,
    pdu: &Pdu,
) -> Result<(), StorageError> {
    let room = header.value.room;
    let is_accepted = header.value.status == EventStatus::Accepted;
    if !is_accepted {
        let noted = row.reader().has(&schema::OFF_TIMELINE, &(room, num))?;
        if !row.expect(noted, "the event is not among those outside of the timeline") {
            row.put(&schema::OFF_TIMELINE, &(room, num), &());
        }
    }
    if is_accepted && header.value.partial_state {
        let problem = "the event is not among those whose state is known in part";
        row.expect_row(&schema::PARTIAL_STATES, &(room, header.pos), &num, problem)?;
    }
    let starts = readable(row.reader().get(&schema::HISTORY_STARTS, &room))?;
    let (mut follows, mut follows_set_aside) = (Vec::new(), false);
    let mut missing: Vec<MissingPrev> = Vec::new();
    for prev in &pdu.prev_events {
        let known = row.event_num(prev)?;
        let late = known.filter(|known| !header.value.prev.contains(known));
        // Where servers choose the ids, one may have come to stand for an event of another room.
        let late = match late.map(|late| row.header(late)).transpose()?.flatten() {
            Some(found) if found.value.room != room => None,
            _ => late,
        };
        row.seen.followed.extend(late);
        // What a purge removed is not missed.
        if !is_accepted || starts.is_some() {
            continue;
        }
        match known.map(|known| in_graph(row, room, known)).transpose()?.flatten() {
            Some(status) => {
                follows_set_aside |= status != EventStatus::Accepted;
                follows.extend(late);
            }
            None => {
                let by = BackwardExtremity { follower: num, depth: header.value.depth };
                missing.push((prev.clone(), by));
            }
        }
    }
    if follows_set_aside {
        // What was here when it came is looked through first, as it was then.
        follows.extend(&header.value.prev);
        missing.extend(missing_behind(row, (num, room), pdu, &follows)?);
    }
    expect_noted(row, header, missing)
}

/// What is missing before events that are not shown, and that the event follows. It was not always noted.
fn missing_behind(
    row: &Row<'_>,
    (num, room): (EventNum, RoomNum),
    pdu: &Pdu,
    follows: &[EventNum],
) -> Result<Vec<MissingPrev>, StorageError> {
    let found = readable(RoomCtx::find(row.reader(), &pdu.room_id))?.filter(|found| found.num == room);
    let Some(found) = found else { return Ok(Vec::new()) };
    // Of what cannot be read is told where it is visited.
    let missing = gap::missing_prev_events(row.reader(), &found, num, follows, pdu);
    let mut missing = readable(missing.map(Some))?.unwrap_or_default();
    // What it names itself is known.
    missing.retain(|(_, by)| by.follower != num);
    Ok(missing)
}

/// Expects what an event lacks to be noted. What is not is looked for from then on in a gap before the event, or as near below it as there is
/// room for one.
fn expect_noted(
    row: &mut Row<'_>,
    header: &Positioned<schema::EventHeader>,
    missing: Vec<MissingPrev>,
) -> Result<(), StorageError> {
    let room = header.value.room;
    let mut unnoted = Vec::new();
    for (event_id, by) in missing {
        let key = (room, event_id.to_string());
        let noted = row.reader().has(&schema::BACKWARD_EXTREMITIES, &key)?;
        if !row.expect(noted, &format!("{event_id} is missing before the event, and not noted")) {
            unnoted.push((key, by));
        }
    }
    if unnoted.is_empty() {
        return Ok(());
    }
    let gap = match header.value.after_gap {
        true => header.pos,
        false => gap::place_before(row.reader(), room, header.pos)?,
    };
    for (key, value) in unnoted {
        row.put(&schema::BACKWARD_EXTREMITIES, &key, &Positioned { pos: gap, value });
    }
    // The gap itself is opened where what is missing in it is visited.
    let behind = readable(row.reader().get(&schema::TIMELINE, &(room, gap)))?;
    if let Some(behind) = behind
        && row.header(behind)?.is_some_and(|header| !header.value.after_gap)
    {
        row.change_header(behind, |_, header| {
            header.value.after_gap = true;
            Ok(())
        });
    }
    Ok(())
}
