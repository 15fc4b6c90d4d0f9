"""Events between what is here and what comes are asked for, and the state is worked out of them: whole states, which may be
large, are asked for only where that leads nowhere."""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.rooms import see
from harness.senders import room_messages


@pytest.fixture
def room(alice):
    return alice.create_room(preset="public_chat", room_version="11")


@pytest.fixture
def copy(server, resident, room):
    """What the resident has of the room."""
    return resident.join(server, room)


def place_message(resident, copy, body):
    return resident.place(copy, resident.message(copy, body))


def test_what_lies_between_tells_the_state(server, alice, resident, copy, room):
    """State that was set in it included."""
    content = {"membership": "join", "displayname": "A rabbit"}
    missing = [
        place_message(resident, copy, "one"),
        resident.next(copy, "m.room.member", content, state_key=copy.user),
        place_message(resident, copy, "two"),
    ]
    resident.transact(server, [last := place_message(resident, copy, "three")])
    see(alice, room, id_of(last))
    assert bodies(room_messages(alice, room)) == ["one", "two", "three"]
    assert alice.state(room, "m.room.member", copy.user) == content
    assert resident.versions_asked("get_missing_events")
    assert resident.states_asked(*missing, last) == []
    assert resident.versions_asked("state_ids") == resident.versions_asked("state") == []


def test_a_state_is_asked_for_where_nobody_tells_what_lies_between(server, alice, resident, copy, room):
    """What says that the other test would see it."""
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    place_message(resident, copy, "never told")
    resident.transact(server, [last := place_message(resident, copy, "told")])
    see(alice, room, id_of(last))
    assert any("/state_ids/" in target for target in resident.states_asked(last))
