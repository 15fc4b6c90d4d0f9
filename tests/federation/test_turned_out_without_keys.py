"""A moderator turns out a member whose join this server cannot check, for their server is away and nobody tells its keys: the room goes on,
and the member is out once the keys are here (server-server API, "Rejection" and "Retrieving server keys"). A room that replaces this one before
that would never hear of it: whoever is banned here is banned there (client-server API, "Room Upgrades").
"""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.rooms import joined_members, members, see, via
from harness.senders import room_messages
from harness.waiting import until

KEYS = "/_matrix/key/v2/server"
# A room is silent for a minute where keys are waited for that were not asked for before.
SECONDS_MAX = 45
# More than are adopted at once.
STATES = 20


@pytest.fixture
def member(away):
    return away.user("member")


@pytest.fixture
def copy(alice, resident, away, member):
    """The resident's copy of a room of its own that Alice has entered, for whom the member is not there yet."""
    copy = resident.create()
    away.come(copy, member)
    alice.join(copy.room_id, query=via(resident))
    assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}
    return copy


def turn_out(resident, copy, member, membership="leave"):
    return resident.next(copy, "m.room.member", {"membership": membership}, state_key=member)


def tell_keys(away, warren):
    """Lets the server have them, which asks again at once."""
    away.answers[KEYS] = away.told_keys
    warren.restart()


def is_out_once_the_keys_are_here(warren, alice, resident, away, copy, membership="leave"):
    tell_keys(away, warren)
    until(lambda: away.user("member") in members(alice, copy.room_id, membership))
    return joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}


@pytest.mark.parametrize("membership", ["leave", "ban"])
def test_who_is_turned_out_before_the_keys_are_here_is_out(
    warren, alice, resident, away, member, copy, membership
):
    resident.transact(warren, [turn_out(resident, copy, member, membership)])
    said = ["after that", "and more"]
    for body in said:
        resident.transact(warren, [resident.place(copy, resident.message(copy, body))])
    until(lambda: set(said) <= set(bodies(room_messages(alice, copy.room_id))), SECONDS_MAX)
    alice.send(copy.room_id, "an answer")
    resident.until(lambda: "an answer" in resident.bodies)
    assert is_out_once_the_keys_are_here(warren, alice, resident, away, copy, membership)


def test_who_is_turned_out_as_a_later_state_alone_tells_is_out(warren, alice, resident, away, member, copy):
    # Nobody sends it, or tells of it as of what lies between.
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    turn_out(resident, copy, member)
    after = resident.place(copy, resident.message(copy, "after that"))
    resident.transact(warren, [after])
    see(alice, copy.room_id, id_of(after), seconds=SECONDS_MAX)
    assert resident.states_asked(after)
    assert is_out_once_the_keys_are_here(warren, alice, resident, away, copy)


def test_who_is_turned_out_as_a_later_join_alone_tells_is_out(warren, alice, resident, away, member, copy):
    alice.leave(copy.room_id)
    resident.until(lambda: resident.pdus)
    resident.take(copy, resident.pdus[-1])
    turn_out(resident, copy, member)
    alice.join(copy.room_id, query=via(resident))
    assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}
    assert is_out_once_the_keys_are_here(warren, alice, resident, away, copy)


def test_all_that_many_states_go_without_is_there_once_the_keys_are_here(
    warren, alice, resident, away, member, copy
):
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    users = [away.user(f"member{number}") for number in range(STATES)]
    for user in users:
        away.come(copy, user)
        after = resident.place(copy, resident.message(copy, f"{user} is here"))
        resident.transact(warren, [after])
        see(alice, copy.room_id, id_of(after), seconds=SECONDS_MAX)
        assert resident.states_asked(after)
    assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}
    turn_out(resident, copy, users[0])
    after = resident.place(copy, resident.message(copy, "but one"))
    resident.transact(warren, [after])
    see(alice, copy.room_id, id_of(after), seconds=SECONDS_MAX)
    tell_keys(away, warren)
    present = {alice.user_id, resident.user(), member, *users[1:]}
    until(lambda: joined_members(alice, copy.room_id) == present)
    assert members(alice, copy.room_id, "leave") == {users[0]}


def test_who_is_banned_before_the_keys_are_here_is_banned_from_the_room_that_replaces_it(warren, alice, resident, away):
    copy = resident.create()
    levels = {user: 100 for user in (resident.user(), alice.user_id)}
    resident.next(copy, "m.room.power_levels", {"users": levels}, state_key="")
    member = away.user("member")
    away.come(copy, member)
    alice.join(copy.room_id, query=via(resident))
    ban = resident.next(copy, "m.room.member", {"membership": "ban", "reason": "noise"}, state_key=member)
    resident.transact(warren, [ban])
    resident.transact(warren, [resident.place(copy, resident.message(copy, "after that"))])
    until(lambda: "after that" in bodies(room_messages(alice, copy.room_id)), SECONDS_MAX)
    assert members(alice, copy.room_id, "ban") == set(), "nobody can tell yet"
    upgrade = {"new_version": "11"}
    replacement = alice.post("rooms/{roomId}/upgrade", copy.room_id, json=upgrade)["replacement_room"]
    assert members(alice, replacement, "ban") == {member}
