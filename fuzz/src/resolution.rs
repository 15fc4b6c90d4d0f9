//! Histories of rooms: resolved as `ruma-state-res` and the slow references do, whatever the order of the states.

use warren_engine::core::num::NodeId;
use warren_engine::core::resolve::testing::{History, Room, State, resolve_v1};
use warren_engine::core::version::{ROOM_VERSIONS, StateResolution};

use crate::oracle::{Oracle, Resolved};

/// The first byte picks the room version, the others are the choices of a history.
pub fn resolution(bytes: &[u8]) {
    let Some((&first, choices)) = bytes.split_first() else { return };
    let Some(version) = ROOM_VERSIONS.get(usize::from(first) % ROOM_VERSIONS.len()) else { return };
    let History { mut room, merges } = History::new(version, choices);
    let oracle = Oracle::new(&room);
    assert_eq!(
        oracle.is_some(),
        version.state_resolution != StateResolution::V1,
        "the oracle takes the room"
    );
    for merge in merges.iter().filter(|merge| !merge.is_empty()) {
        let resolved = room.resolved(merge).expect("nothing of the room is missing");
        let reversed: Vec<NodeId> = merge.iter().rev().copied().collect();
        assert_eq!(
            room.resolved(&reversed).ok().as_ref(),
            Some(&resolved),
            "the order of the states decides"
        );
        room.is_indexed = !room.is_indexed;
        assert_eq!(room.resolved(merge).ok().as_ref(), Some(&resolved), "the index of citations decides");
        let expected = match &oracle {
            Some(oracle) => oracle.resolved(&room, merge),
            None => {
                let states: Vec<&State> = merge.iter().map(|snapshot| room.state(*snapshot)).collect();
                Some(readable(&room, &resolve_v1(&room, &states)))
            }
        };
        assert_eq!(Some(readable(&room, &resolved)), expected, "version {}, {merge:?}", version.id);
    }
}

fn readable(room: &Room, state: &State) -> Resolved {
    let pdus = state.values().filter_map(|event| Some(room.event(*event)?.pdu()));
    let entry = |pdu: &std::sync::Arc<warren_engine::core::event::Pdu>| {
        let state_key = pdu.state_key.as_deref().unwrap_or_default().to_owned();
        ((pdu.kind.to_string(), state_key), pdu.event_id.to_string())
    };
    pdus.map(entry).collect()
}
