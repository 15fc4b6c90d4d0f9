"""What a server learns that comes into a room: one of another server's into this one's, and this one into another's."""

import threading

import pytest

from harness.participant import SECONDS_MAX, id_of
from harness.rooms import see, via
from harness.waiting import until

KEYS = "/_matrix/key/v2/server"


def test_what_is_said_while_a_server_is_on_its_way_comes_to_it(server, alice, resident):
    room = alice.create_room(preset="public_chat", room_version="11")
    join = resident.make_join(server, room)
    alice.send(room, "meanwhile")
    status, answer = resident.send_join(server, join)
    assert status == 200, answer
    # Nothing else has to be said for that.
    resident.until(lambda: resident.bodies)
    alice.send(room, "afterwards")
    resident.until(lambda: len(resident.bodies) > 1)
    assert resident.bodies == ["meanwhile", "afterwards"]


@pytest.mark.parametrize("is_answered_first", [False, True], ids=["a short join", "a join that nobody waits for"])
def test_what_comes_before_this_server_has_entered_is_not_lost(server, alice, hasty, resident, is_answered_first):
    """It comes from another server in the room, whose key is asked for when the transaction has come."""
    copy = hasty.create()
    join = resident.sign(hasty.template(copy.room_id, resident.user(), "join")[1]["event"])
    hasty.take(copy, join)
    resident.know(*hasty.events.values())
    said = resident.message(copy, "meanwhile", sender=resident.user())
    entering = threading.Thread(target=alice.join, args=[copy.room_id], kwargs={"query": via(hasty)})
    entering.start()
    assert hasty.was_handed_in.wait(SECONDS_MAX)
    telling = threading.Thread(target=resident.transact, args=[server, [said]])
    telling.start()
    until(lambda: resident.asked(KEYS))
    if is_answered_first:
        telling.join(SECONDS_MAX)
        assert not telling.is_alive(), "it is answered while the join is under way"
    hasty.may_answer.set()
    for thread in (entering, telling):
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()
    see(alice, copy.room_id, id_of(said))
