"""A moderator turns out a member whose join this server cannot check, for their server is away and nobody tells its keys: the room goes on,
and the member is out once the keys are here (server-server API, "Rejection" and "Retrieving server keys"). A room that replaces this one before
that would never hear of it: whoever is banned here is banned there (client-server API, "Room Upgrades").
"""

import pytest

from harness.client import Client, bodies
from harness.participant import Participant
from harness.rooms import joined_members, members, via
from harness.senders import room_messages
from harness.waiting import until

KEYS = "/_matrix/key/v2/server"
# A room is silent for a minute where keys are waited for that were not asked for before.
SECONDS_MAX = 45


@pytest.fixture
def away(network, resident):
    """A server whose users are in rooms of the resident's, and that tells nobody its keys."""
    peer = network.peer(kind=Participant)
    peer.events, peer.before, peer.copies = resident.events, resident.before, resident.copies
    peer.told_keys = peer.answers[KEYS]
    peer.answers[KEYS] = lambda _: (503, {"errcode": "M_UNKNOWN", "error": "Not now."})
    yield peer
    peer.close()


@pytest.mark.parametrize("membership", ["leave", "ban"])
def test_who_is_turned_out_before_the_keys_are_here_is_out(warren, resident, away, membership):
    alice = Client(warren.base_url).register("alice")
    copy = resident.create()
    member = away.user("member")
    away.next(copy, "m.room.member", {"membership": "join"}, sender=member, state_key=member)
    alice.join(copy.room_id, query=via(resident))
    assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}
    resident.transact(
        warren, [resident.next(copy, "m.room.member", {"membership": membership}, state_key=member)]
    )
    said = ["after that", "and more"]
    for body in said:
        resident.transact(warren, [resident.place(copy, resident.message(copy, body))])
    until(lambda: set(said) <= set(bodies(room_messages(alice, copy.room_id))), SECONDS_MAX)
    alice.send(copy.room_id, "an answer")
    resident.until(lambda: "an answer" in resident.bodies)
    away.answers[KEYS] = away.told_keys
    # Asks again at once.
    assert warren.stop() == 0, warren.log_tail()
    warren.start()
    until(lambda: member in members(alice, copy.room_id, membership))
    assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}


def test_who_is_banned_before_the_keys_are_here_is_banned_from_the_room_that_replaces_it(warren, resident, away):
    alice = Client(warren.base_url).register("alice")
    copy = resident.create()
    levels = {user: 100 for user in (resident.user(), alice.user_id)}
    resident.next(copy, "m.room.power_levels", {"users": levels}, state_key="")
    member = away.user("member")
    away.next(copy, "m.room.member", {"membership": "join"}, sender=member, state_key=member)
    alice.join(copy.room_id, query=via(resident))
    ban = resident.next(copy, "m.room.member", {"membership": "ban", "reason": "noise"}, state_key=member)
    resident.transact(warren, [ban])
    resident.transact(warren, [resident.place(copy, resident.message(copy, "after that"))])
    until(lambda: "after that" in bodies(room_messages(alice, copy.room_id)), SECONDS_MAX)
    assert members(alice, copy.room_id, "ban") == set(), "nobody can tell yet"
    upgrade = {"new_version": "11"}
    replacement = alice.post("rooms/{roomId}/upgrade", copy.room_id, json=upgrade)["replacement_room"]
    assert members(alice, replacement, "ban") == {member}
