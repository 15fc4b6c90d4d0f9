"""Power levels of other servers that ours would not make, and that all servers take: a room has to stay one."""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.rooms import see
from harness.senders import room_messages

POWER = "m.room.power_levels"
# No server can be called that.
NOBODY = "@typo:my_server.test"


@pytest.fixture
def room(alice):
    return alice.create_room(preset="public_chat", room_version="11")


@pytest.fixture
def copy(server, alice, resident, room):
    """What the resident has of the room, in which its user may do what Alice may."""
    copy = resident.join(server, room)
    power = alice.state(room, POWER)
    alice.set_state(room, POWER, {**power, "users": {**power["users"], copy.user: 100}})
    resident.until(lambda: any(event["type"] == POWER for event in resident.pdus))
    return resident.catch_up(server, copy)


def test_a_level_for_a_user_who_cannot_be(server, alice, resident, copy, room):
    """It counts with all else that is set with it, and the room goes on, with our own changes, too."""
    power = alice.state(room, POWER)
    power = {**power, "ban": 70, "users": {**power["users"], NOBODY: 50}}
    levels = resident.next(copy, POWER, power, state_key="")
    last = resident.place(copy, resident.message(copy, "and on"))
    assert resident.transact(server, [levels, last]) == {id_of(levels): {}, id_of(last): {}}
    see(alice, room, id_of(last))
    assert alice.state(room, POWER) == power
    assert bodies(room_messages(alice, room)) == ["and on"]
    alice.set_state(room, POWER, {**power, "ban": 60})
    assert alice.state(room, POWER)["users"][NOBODY] == 50


def test_what_is_no_user_id_at_all_is_rejected(server, alice, resident, copy, room):
    power = alice.state(room, POWER)
    wrong = resident.event(copy, POWER, {**power, "users": {**power["users"], "typo": 50}}, state_key="")
    assert "error" in resident.transact(server, [wrong])[id_of(wrong)]
    assert alice.state(room, POWER) == power
