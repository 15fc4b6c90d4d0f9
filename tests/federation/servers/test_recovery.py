"""A server that was away catches up, also over a restart in the middle of something."""

import urllib.parse

import pytest

from harness.beside import tell_beside
from harness.client import bodies
from harness.federated import Distant, Warren
from harness.rooms import entrust, joined_members, meet, see, state_ids, until_joined, via
from harness.senders import Load, Sender, room_messages
from harness.server import sound


@pytest.fixture
def sleeper(authority, tmp_path):
    """A Warren that a test stops and starts."""
    server = Warren(tmp_path / "sleeper", authority).start()
    yield server
    if server.process.poll() is None:
        assert server.stop() == 0, server.log_tail()
    server.check()


@pytest.fixture
def zoe(sleeper):
    return sleeper.client(sleeper.base_url).register("zoe")


@pytest.fixture
def busy_room(there, zoe, bob):
    """A room of Bob's that Zoe is in."""
    return meet(bob, zoe, there)


def goes_on_without(away, listener, speaker, room, count):
    """A server is away while there is talk; its user is told all of it when it is back, and what else was told meanwhile."""
    before = listener.send(room, "before")
    see(speaker, room, before)
    listener.sync()
    code = away.stop()
    # How another implementation ends is not what is tested.
    assert code == 0 or not isinstance(away, Warren), away.log_tail()
    for number in range(count):
        speaker.send(room, f"message {number}")
    speaker.set_state(room, "org.example.state", {"topic": "meanwhile"})
    (heard,) = tell_beside(speaker, [listener], room, before)
    away.start()
    speaker.send(room, "at last")
    # Who hears from a server that was away tries it again at once.
    listener.get("profile/{userId}", speaker.user_id)
    wanted = ["before"] + [f"message {number}" for number in range(count)] + ["at last"]

    def is_all(answer):
        # Synapse gives what it has and asks for the rest behind.
        return heard.look(answer) and "at last" in bodies(heard.events) and bodies(room_messages(listener, room)) == wanted

    listener.sync_until(is_all)
    heard.check()
    assert listener.state(room, "org.example.state") == {"topic": "meanwhile"}
    assert state_ids(listener, room) == state_ids(speaker, room)
    see(speaker, room, listener.send(room, "I am back"))


# Within one transaction, and more than one may have.
@pytest.mark.parametrize("count", [5, 60])
def test_what_we_missed_in_an_outage_is_there_afterwards(sleeper, busy_room, zoe, bob, count):
    goes_on_without(sleeper, zoe, bob, busy_room, count)


@pytest.mark.parametrize("count", [5, 60])
def test_what_they_missed_in_an_outage_is_there_afterwards(there, busy_room, zoe, bob, count):
    entrust(bob, busy_room, zoe)
    goes_on_without(there, bob, zoe, busy_room, count)


# Whoever is killed after a join has nearly always the members still to come.
TRIES = 10


@pytest.fixture
def distant(there, authority, tmp_path):
    """A Warren that a test cuts off, with an administrator."""
    server = Distant(tmp_path / "distant", authority, there)
    server.admin_password = server.make_administrator("warden")
    with sound(server):
        yield server


def lacking(server):
    """The rooms of which the server does not know the members."""
    admin = server.client(server.base_url, f"@warden:{server.name}").login(server.admin_password)
    return [room["room_id"] for room in admin.get("/_warren/admin/v1/partial_joins")["rooms"]]


def crowded(bob, others):
    room = bob.create_room(preset="public_chat", name="Many")
    for other in others:
        other.join(room)
    return room


def killed_in_a_join(server, there, zoe, bob, others):
    """A room whose members the server lacked when it was killed, as it lacks them after that; it is cut off."""
    for _ in range(TRIES):
        room = crowded(bob, others)
        zoe.join(room, query=via(there))
        server.kill()
        server.cut_off()
        server.start()
        if lacking(server) == [room]:
            return room
        server.reconnect()
    raise AssertionError(f"{TRIES} times, the members were there before the server could be killed")


def test_members_come_also_after_a_restart(distant, there, bob):
    others = [there.client(there.base_url).register("other") for _ in range(20)]
    zoe = distant.client(distant.base_url).register("zoe")
    room = killed_in_a_join(distant, there, zoe, bob, others)
    early = zoe.send(room, "nobody hears me yet")
    distant.reconnect()
    see(bob, room, early)
    until_joined(zoe, room, bob, *others)
    assert lacking(distant) == []
    assert joined_members(zoe, room) == joined_members(bob, room)
    assert state_ids(zoe, room) == state_ids(bob, room)


def load_of(client, room):
    return Load([Sender("count", client, room)])


def port_of(server):
    return urllib.parse.urlsplit(server.base_url).port


def until_all_there(client, room, load):
    """Waits until the client's server has all that was acknowledged, and checks that each is there once, in order."""
    (sender,) = load.senders
    last = sender.acknowledged[sender.next_number - 1]

    def is_there(_):
        return last in [event["event_id"] for event in room_messages(client, room)]

    client.sync_until(is_there, seconds=60)
    load.check({room: room_messages(client, room)})


def test_a_kill_in_the_middle_of_what_comes(sleeper, there, busy_room, zoe, bob):
    room = busy_room
    load = load_of(bob, room)
    load.start(port_of(there))
    assert load.wait_for(20)
    sleeper.kill()
    assert load.wait_for(5)
    sleeper.start()
    assert load.wait_for(20)
    load.finish()
    until_all_there(zoe, room, load)
    assert state_ids(zoe, room) == state_ids(bob, room)


def test_a_kill_in_the_middle_of_what_goes(sleeper, busy_room, zoe, bob):
    room = busy_room
    load = load_of(zoe, room)
    load.start(port_of(sleeper))
    assert load.wait_for(20)
    sleeper.kill()
    load.finish()
    sleeper.start()
    load.start(port_of(sleeper))
    assert load.wait_for(20)
    load.finish()
    until_all_there(bob, room, load)
    assert state_ids(zoe, room) == state_ids(bob, room)


def test_a_room_that_was_left_is_entered_again(there, here, alice, bob):
    room = meet(bob, alice, there)
    alice.leave(room)
    bob.set_state(room, "m.room.topic", {"topic": "while you were out"})
    bob.send(room, "nobody hears me")
    alice.join(room, query=via(there))
    alice.sync_until(lambda _: state_ids(alice, room) == state_ids(bob, room))
    assert alice.state(room, "m.room.topic") == {"topic": "while you were out"}
