"""How long a user waits for a server that lets them into a room and does not answer: as long as clients do, and no longer."""

import threading

import pytest

from harness.client import joined
from harness.clock import Clock
from harness.metrics import until_at_work
from harness.participant import SECONDS_MAX
from harness.rooms import joined_members, via
from harness.server import free_port, sound
from harness.waiting import until

# What passes of time at each look.
STEP_SECONDS = 4


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def server(network, tmp_path_factory, clock):
    """A server of these tests' own, for which a test lets time pass."""
    metrics = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path_factory.mktemp("slow"), "--metrics-listen", metrics)
    server.environment, server.metrics = clock.environment, metrics
    with sound(server):
        yield server


def begun(do, *arguments, **more):
    doing = threading.Thread(target=do, args=arguments, kwargs=more)
    doing.start()
    return doing


def ended(doing):
    doing.join(SECONDS_MAX)
    return not doing.is_alive()


def seconds_until(answered, clock, user, most):
    """Lets time pass, this `most`, until a request is answered. Answers how many seconds."""
    passed = 0

    def is_answered():
        nonlocal passed
        step = min(STEP_SECONDS, most - passed)
        clock.passes(step)
        passed += step
        # Whoever sleeps is woken.
        user.get("account/whoami")
        return not answered.is_alive()

    until(is_answered)
    return passed


def left_rooms(client):
    """The rooms that a client is told of that its user has left."""
    return client.sync(filter='{"room":{"include_leave":true}}')["rooms"].get("leave", {})


def until_told_to_have_left(hasty, user):
    def memberships():
        return [event["content"]["membership"] for event in hasty.pdus if event.get("state_key") == user.user_id]

    hasty.until(lambda: memberships()[-1:] == ["leave"])


@pytest.mark.parametrize("is_invited", [False, True], ids=["a public room", "an invite"])
def test_who_leaves_on_the_way_in_is_out(server, clock, alice, bob, hasty, is_invited):
    """The other server has let them in by then: a leave that is told before the join would not stand against it. Who waits for that is
    told so within half a minute, which clients wait."""
    copy = hasty.create("invite" if is_invited else "public")
    if is_invited:
        invite = hasty.next(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
        assert hasty.send_invite(server, copy.room_id, invite)[0] == 200
    entering = begun(alice.join, copy.room_id, query=via(hasty))
    assert hasty.was_handed_in.wait(SECONDS_MAX)
    told = []
    leaving = begun(lambda: told.append(alice.leave(copy.room_id, status=503)))
    until_at_work(server.metrics, 2)
    assert seconds_until(leaving, clock, bob, most=30) > 10
    # So it was taken up, and waits for the join.
    assert "still coming into this room" in told[0]["error"] and entering.is_alive()
    hasty.may_answer.set()
    assert ended(entering)
    until_told_to_have_left(hasty, alice)
    assert not hasty.versions_asked("send_leave")
    assert copy.room_id in left_rooms(alice) and not joined(alice.sync(), copy.room_id)


def test_who_is_invited_by_who_never_lets_them_in_comes_in_by_what_is_known_here(server, clock, alice, bob, hasty):
    """The room may have gone on without this server, or that may be a lie."""
    room = bob.create_room(preset="public_chat", room_version="11")
    copy = hasty.join(server, room)
    invite = hasty.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    assert hasty.send_invite(server, room, invite)[0] == 200
    entering = begun(alice.join, room)
    assert hasty.was_handed_in.wait(SECONDS_MAX)
    assert not joined(alice.sync(), room)
    assert seconds_until(entering, clock, bob, most=65) > 40
    assert joined(alice.sync(), room)
    assert not hasty.may_answer.is_set()
    # They may be let in late: who leaves meanwhile is out when that is over.
    told = []
    leaving = begun(lambda: told.append(alice.leave(room, status=503)))
    assert seconds_until(leaving, clock, bob, most=30) > 10
    assert "still coming into this room" in told[0]["error"] and alice.user_id in joined_members(bob, room)
    hasty.may_answer.set()
    until(lambda: alice.user_id not in joined_members(bob, room))
    assert not joined(alice.sync(), room)
