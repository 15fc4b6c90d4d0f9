"""What was rejected stays so, and what came too late is not followed, in whatever order events arrive.

The class of fault: a rejected event resurrected; a soft-failed event served, or named as one that another follows. The
model tests are `fuzz/tests/rooms.rs` and the simulator; here a server sends such events, one at a time.
"""

import random

import pytest

from harness.client import bodies
from harness.events import Copy, id_of
from harness.participant import path
from harness.rooms import state_ids
from harness.senders import room_messages

ORDERS = 6


@pytest.mark.parametrize("seed", range(ORDERS))
def test_neither_is_shown_nor_followed_in_any_order(server, hostile, honest, copy, alice, room, seed):
    vera = honest.user("vera")
    theirs = honest.join(server, room, vera)
    before = Copy(room, theirs.state, theirs.ends, theirs.depth)
    # Vera is banned; what she says beside the ban is allowed where it stands, and comes too late.
    alice.post("rooms/{roomId}/ban", room, json={"user_id": vera})
    late = honest.message(before, "too late", sender=vera)
    after_late = honest.message(Copy(room, before.state, [id_of(late)], late["depth"]), "after it", sender=vera)
    # What the hostile server's user may not do, and what it says after that.
    ban = next(event for event in alice.get("rooms/{roomId}/state", room) if event["state_key"] == vera)
    hostile.until(lambda: any(id_of(event) == ban["event_id"] for event in hostile.pdus))
    copy.ends, copy.depth = [ban["event_id"]], hostile.events[ban["event_id"]]["depth"]
    power = hostile.event(copy, "m.room.power_levels", {"users": {hostile.user(): 100}}, state_key="")
    topic = hostile.event(copy, "m.room.topic", {"topic": "taken"}, state_key="")
    first = hostile.message(Copy(room, copy.state, [id_of(power), id_of(topic)], copy.depth + 1), "after the rejected")
    second = hostile.message(Copy(room, copy.state, [id_of(first)], copy.depth + 2), "and on")
    sent = [(honest, late), (honest, after_late), (hostile, power), (hostile, topic), (hostile, first), (hostile, second)]
    # Each twice, so that what was judged comes again.
    sent = sent * 2
    random.Random(seed).shuffle(sent)
    for peer, event in sent:
        peer.transact(server, [event])
    see_all(alice, room, id_of(second))
    assert bodies(room_messages(alice, room)) == ["after the rejected", "and on"]
    assert alice.state(room, "m.room.power_levels")["users"] == {alice.user_id: 100}
    alice.state(room, "m.room.topic", status=404)
    kept = {id_of(power), id_of(topic), id_of(late), id_of(after_late)}
    assert not kept & state_ids(alice, room)
    # Our own events follow none of them, and nobody is given what was rejected.
    own = alice.send(room, "our own")
    hostile.until(lambda: any(id_of(event) == own for event in hostile.pdus))
    assert hostile.events[own]["prev_events"] == [id_of(second)]
    for event in (power, topic):
        assert hostile.send(server, "GET", path("v1/event/{}", id_of(event)))[0] == 404


def see_all(client, room, event_id):
    """Waits until the event is in the room, wherever in a sync it came."""
    def is_there(_):
        return event_id in [event["event_id"] for event in room_messages(client, room)]

    client.sync_until(is_there)
