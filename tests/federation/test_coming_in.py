"""What a server learns that comes into a room: one of another server's into this one's, and this one into another's."""

import contextlib
import threading

import pytest

from harness.client import joined
from harness.participant import SECONDS_MAX, Participant, id_of
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


class Hasty(Participant):
    """Answers a join only when a test lets it."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.was_handed_in, self.may_answer = threading.Event(), threading.Event()

    def answer_send_join(self, values, query, body):
        answer = super().answer_send_join(values, query, body)
        self.was_handed_in.set()
        self.may_answer.wait(SECONDS_MAX)
        return answer


@pytest.fixture
def hasty(network):
    peer = network.peer(kind=Hasty)
    yield peer
    peer.may_answer.set()
    peer.close()


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


def left_rooms(client):
    """The rooms that a client is told of that its user has left."""
    return client.sync(filter='{"room":{"include_leave":true}}')["rooms"].get("leave", {})


@contextlib.contextmanager
def on_the_way_into(copy, user, hasty):
    """While a user comes into a room: who has them in waits for the end."""
    entering = threading.Thread(target=user.join, args=[copy.room_id], kwargs={"query": via(hasty)})
    entering.start()
    assert hasty.was_handed_in.wait(SECONDS_MAX)
    try:
        yield
    finally:
        hasty.may_answer.set()
    entering.join(SECONDS_MAX)
    assert not entering.is_alive()


def until_told_to_have_left(hasty, user):
    def memberships():
        return [event["content"]["membership"] for event in hasty.pdus if event.get("state_key") == user.user_id]

    hasty.until(lambda: memberships()[-1:] == ["leave"])


@pytest.mark.parametrize("is_invited", [False, True], ids=["a public room", "an invite"])
def test_who_leaves_on_the_way_in_is_out(server, alice, hasty, is_invited):
    """The other server has let them in by then: a leave that is told before the join would not stand against it."""
    copy = hasty.create("invite" if is_invited else "public")
    if is_invited:
        invite = hasty.next(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
        assert hasty.send_invite(server, copy.room_id, invite)[0] == 200
    leaving = threading.Thread(target=alice.leave, args=[copy.room_id])
    with on_the_way_into(copy, alice, hasty):
        leaving.start()
        # What is asked for behind it is answered: it has been taken up.
        alice.sync()
    leaving.join(SECONDS_MAX)
    assert not leaving.is_alive()
    until_told_to_have_left(hasty, alice)
    assert not hasty.versions_asked("send_leave")
    assert copy.room_id in left_rooms(alice) and not joined(alice.sync(), copy.room_id)
