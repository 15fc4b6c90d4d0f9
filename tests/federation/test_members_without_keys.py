"""Of a room that was entered without its members some cannot be checked, for their server is away and nobody tells its keys. Whoever
asks for the members late loses none of them, the room goes on meanwhile, and a server that was only supposed to be there hears nothing of a
room that takes the place of one that was purged (server-server API, "Retrieving server keys" and "Joining Rooms").
"""

import pytest

from harness.events import id_of
from harness.omitting import PARTIAL_JOINS, Omitting, until_all_whole
from harness.participant import Participant
from harness.rooms import LAZY, joined_members, see, via
from harness.waiting import until

KEYS = "/_matrix/key/v2/server"
NOT_NOW = {"errcode": "M_UNKNOWN", "error": "Not now."}
SECONDS_MAX = 60
# Keys are waited for a minute, and what waits is looked at each quarter of one. The pauses would be over half a minute later.
WITHOUT_KEYS_SECONDS_MAX = 85


@pytest.fixture
def resident_kind():
    return Omitting


def tell_keys(away, warren):
    """Lets the server have them, which asks again at once."""
    away.answers[KEYS] = away.told_keys
    warren.restart()


@pytest.mark.parametrize("omits", [True, False], ids=["without members", "with members"])
def test_who_came_between_two_joins_is_there_once_the_keys_are_here(warren, admin, alice, resident, away, omits):
    """The members of the first join are asked for behind those of the second, and what they say is older."""
    copy, member = resident.create(), away.user("member")
    room, answer_state = copy.room_id, resident.answer_state
    resident.answer_state = lambda *_: (500, NOT_NOW)
    alice.join(room, query=via(resident))
    until(lambda: any(found["rounds_failed"] for found in admin.get(PARTIAL_JOINS)["rooms"]))
    alice.leave(room)
    resident.until(lambda: resident.pdus and resident.pdus[-1]["content"] == {"membership": "leave"})
    resident.take(copy, resident.pdus[-1])
    away.come(copy, member)
    if not omits:
        resident.answer_send_join = lambda *question: Participant.answer_send_join(resident, *question)
    resident.answer_state = answer_state
    resident.may_tell.set()
    alice.join(room, query=via(resident))
    until_all_whole(admin)
    assert joined_members(alice, room) == {alice.user_id, resident.user()}
    tell_keys(away, warren)
    until(lambda: joined_members(alice, room) == {alice.user_id, resident.user(), member})
    said = away.place(copy, away.message(copy, "here I am", sender=member))
    away.transact(warren, [said])
    assert see(alice, room, id_of(said))["sender"] == member


def test_what_follows_a_join_without_keys_is_shown_after_a_minute(warren, alice, resident, away):
    """The room lacks its members all the while, so that it waits for nobody's keys that it knows of."""
    copy = resident.create()
    resident.answer_state = lambda *_: (500, NOT_NOW)
    alice.join(copy.room_id, query=via(resident))
    away.come(copy, away.user("member"))
    said = resident.place(copy, resident.message(copy, "they are welcome"))
    resident.transact(warren, [said])
    see(alice, copy.room_id, id_of(said), filter=LAZY, seconds=WITHOUT_KEYS_SECONDS_MAX)


def test_a_server_that_was_supposed_to_be_in_a_purged_room_hears_nothing_of_the_next(
    warren, admin, alice, resident, neighbour
):
    copy, member = resident.create(), neighbour.user("member")
    room = copy.room_id
    neighbour.come(copy, member)
    alice.join(room, query=via(resident))
    assert resident.was_asked.wait(SECONDS_MAX)
    assert warren.stop() == 0, warren.log_tail()
    done = warren.command("room", "purge", room, "--force", *warren.options)
    assert done.returncode == 0, done.stderr
    warren.check()
    # They leave before the room is entered again.
    neighbour.next(copy, "m.room.member", {"membership": "leave"}, sender=member, state_key=member)
    resident.others = []
    resident.may_tell.set()
    warren.start()
    alice.join(room, query=via(resident))
    until_all_whole(admin)
    assert joined_members(alice, room) == {alice.user_id, resident.user()}
    shared = alice.create_room(preset="public_chat", room_version="11")
    neighbour.join(warren, shared)
    alice.send(room, "not for them")
    alice.send(shared, "for them")
    neighbour.until(lambda: "for them" in neighbour.bodies)
    assert "not for them" not in neighbour.bodies
