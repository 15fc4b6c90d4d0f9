"""A real server that could not be reached for long is told where each room ends, and fetches from there what it missed: its
users are shown all of it, once and in order."""

import pytest

from harness.client import bodies
from harness.clock import HOUR, Clock
from harness.deliveries import until_failing
from harness.federated import Gated
from harness.rooms import see, state_ids, until_joined, via
from harness.senders import room_messages
from harness.server import sound

# More than one transaction has, and fewer than a page that is fetched.
MISSED = 60


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def here(authority, clock, there, tmp_path):
    """A Warren with gates between it and the other server, with an administrator, whose time a test sets forward."""
    server = Gated(tmp_path / "here", authority, there)
    server.admin_password = server.make_administrator("warden")
    server.environment = clock.environment
    with sound(server):
        yield server


def test_what_they_missed_in_hours_is_there_afterwards(clock, here, there, room, alice, bob):
    gate = here.outward
    admin = here.client(here.base_url, f"@warden:{here.name}").login(here.admin_password)
    # A second one, of which the end is a message.
    quiet = alice.create_room(preset="public_chat", room_version="11")
    bob.join(quiet, query=via(here))
    until_joined(bob, quiet, alice)
    talk, quiet_talk = [f"missed {number}" for number in range(MISSED)], ["one", "two", "three"]
    see(bob, room, alice.send(room, "before"))
    gate.closes_all = True
    alice.send(room, "it was tried with this")
    until_failing(admin, there)
    for body in talk:
        alice.send(room, body)
    for body in quiet_talk:
        alice.send(quiet, body)
    topic = alice.set_state(room, "m.room.topic", {"topic": "meanwhile"})
    clock.ahead(2 * HOUR)
    gate.answered.clear()
    gate.closes_all = False
    # Who hears from a server that was away tries it again at once.
    bob.get("profile/{userId}", alice.user_id)
    wanted = ["before", "it was tried with this", *talk]
    bob.sync_until(lambda _: bodies(room_messages(bob, room)) == wanted)
    bob.sync_until(lambda _: bodies(room_messages(bob, quiet)) == quiet_talk)
    assert bodies(gate.events_told()) == ["it was tried with this", "three"], "the rest was fetched"
    assert topic in state_ids(bob, room) and state_ids(bob, room) == state_ids(alice, room)
    see(alice, room, bob.send(room, "I am back"))
    see(bob, quiet, alice.send(quiet, "welcome"))


@pytest.mark.parametrize("there", ["synapse"], indirect=True)
def test_what_we_missed_is_there_though_we_are_told_only_where_rooms_end(here, there, room, alice, bob):
    gate = here.inward
    see(alice, room, bob.send(room, "before"))
    gate.closes_all = True
    talk = [f"missed {number}" for number in range(MISSED)]
    for body in talk:
        bob.send(room, body)
    topic = bob.set_state(room, "m.room.topic", {"topic": "meanwhile"})
    # Synapse keeps no list of what is to be sent over a restart, and tells where rooms end.
    there.stop()
    gate.answered.clear()
    gate.closes_all = False
    there.start()
    bob.get("profile/{userId}", alice.user_id)
    alice.sync_until(lambda _: topic in state_ids(alice, room))
    alice.sync_until(lambda _: bodies(room_messages(alice, room)) == ["before", *talk])
    assert bodies(gate.events_told()) == [], "all of it was fetched"
    assert state_ids(alice, room) == state_ids(bob, room)
    see(bob, room, alice.send(room, "I am back"))
