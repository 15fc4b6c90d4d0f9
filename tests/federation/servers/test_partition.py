"""Servers that cannot reach each other for a while go on by themselves, and come to the same state afterwards."""

import pytest

from harness.client import bodies, timeline
from harness.federated import Distant
from harness.rooms import entrust, joined_members, meet, members, see, state_ids, until_joined, until_state, via
from harness.senders import room_messages
from harness.server import sound

# A first pause after a failure is ten seconds, give or take a fifth.
SECONDS_MAX = 60
# A server whose keys could not be had is asked for them again after half a minute, and after another if it was away still.
KEYS_SECONDS_MAX = 150


@pytest.fixture
def distant(authority, there, tmp_path):
    """A Warren that a test can cut off from the other server."""
    with sound(Distant(tmp_path / "distant", authority, there)) as server:
        yield server


@pytest.fixture
def zoe(distant):
    return distant.client(distant.base_url).register("zoe")


@pytest.fixture
def room(there, bob, zoe):
    """A room of Bob's in which Zoe may do what he may."""
    room = meet(bob, zoe, there, room_version="11")
    entrust(bob, room, zoe, 99)
    return room


def both_heal(room, zoe, bob):
    """Waits until both have heard from each other, and hold the same state."""
    last = {client: client.send(room, f"{client.user_id} again") for client in (zoe, bob)}
    for client, other in ((zoe, bob), (bob, zoe)):
        client.sync_until(
            lambda answer: last[other] in [event["event_id"] for event in timeline(answer, room)], SECONDS_MAX
        )
    zoe.sync_until(lambda _: state_ids(zoe, room) == state_ids(bob, room))


def test_a_fork_heals_to_one_state(distant, room, zoe, bob):
    distant.cut_off()
    for number in range(3):
        for client in (zoe, bob):
            client.send(room, f"{client.user_id} {number}")
            client.set_state(room, "org.example.own", {"number": number}, key=client.user_id)
            client.set_state(room, "m.room.topic", {"topic": f"{client.user_id} {number}"})
    assert zoe.state(room, "m.room.topic") != bob.state(room, "m.room.topic")
    distant.reconnect()
    both_heal(room, zoe, bob)
    for client in (zoe, bob):
        assert zoe.state(room, "org.example.own", client.user_id) == {"number": 2}
        said = [f"{client.user_id} {number}" for number in range(3)]
        for reader in (zoe, bob):
            seen = bodies(room_messages(reader, room))
            assert [text for text in seen if text in said] == said, "each once, and in order"
    assert zoe.state(room, "m.room.topic") == bob.state(room, "m.room.topic")


def test_who_is_banned_on_one_side_meanwhile_is_banned_on_both(distant, there, room, zoe, bob):
    dora = zoe.register("dora")
    dora.join(room)
    until_joined(bob, room, dora)
    distant.cut_off()
    bob.post("rooms/{roomId}/ban", room, json={"user_id": dora.user_id})
    dora.send(room, "nobody has told me")
    dora.put("profile/{userId}/displayname", dora.user_id, json={"displayname": "Still here"})
    zoe.send(room, "nor me")
    distant.reconnect()
    both_heal(room, zoe, bob)
    for client in (zoe, bob):
        assert dora.user_id in members(client, room, "ban")
    dora.send(room, "and now?", status=403, errcode="M_FORBIDDEN")
    assert "nobody has told me" not in bodies(room_messages(bob, room))
    see(zoe, room, bob.send(room, "all is well"))


def test_who_cannot_be_reached_when_alice_comes_is_a_member_as_soon_as_they_can(
    here, there, authority, tmp_path, alice, bob
):
    """Nobody tells Alice's server the keys of Zoe's, so that it cannot check what she did in the room."""
    with sound(Distant(tmp_path / "distant", authority, there, here)) as distant:
        zoe = distant.client(distant.base_url).register("zoe")
        room = meet(bob, zoe, there, room_version="11")
        entrust(bob, room, zoe, 50)
        zoe.set_state(room, "m.room.topic", {"topic": "Zoe's"})
        until_state(bob, room, "m.room.topic", "", {"topic": "Zoe's"})
        see(zoe, room, bob.send(room, "before"))
        distant.cut_off()
        zoe.send(room, "on the other side")
        alice.join(room, query=via(there))
        until_joined(alice, room, bob)
        alice.send(room, "is Zoe here?")
        distant.reconnect()
        alice.sync_until(lambda _: zoe.user_id in joined_members(alice, room), KEYS_SECONDS_MAX)
        # Zoe's server has not been told of what was said before it was known to be in the room.
        zoe.sync_until(lambda answer: "is Zoe here?" in bodies(timeline(answer, room)))
        see(zoe, room, alice.send(room, "she is"))
        see(alice, room, zoe.send(room, "I am"))
        alice.sync_until(lambda _: state_ids(alice, room) == state_ids(bob, room))
        assert alice.state(room, "m.room.topic") == {"topic": "Zoe's"}
        for reader in (alice, bob, zoe):
            read = bodies(room_messages(reader, room))
            said = ["before", "on the other side", "is Zoe here?", "she is", "I am"]
            assert sorted(text for text in read if text in said) == sorted(said), "each once"


def test_what_was_said_before_a_fork_stays_before_all_else_for_who_comes_meanwhile(
    here, there, authority, tmp_path, alice, bob
):
    """The server by way of which Alice comes has not heard of what is said on the other side."""
    with sound(Distant(tmp_path / "distant", authority, there, here)) as distant:
        zoe = distant.client(distant.base_url).register("zoe")
        room = meet(bob, zoe, there, room_version="11")
        see(zoe, room, bob.send(room, "before"))
        # Alice's server has Zoe's keys, without which it could not check that she is in the room.
        meet(alice, zoe, here)
        distant.cut_off()
        zoe.send(room, "on the other side")
        bob.send(room, "on this side")
        alice.join(room, query=via(there))
        until_joined(alice, room, bob)
        alice.sync()
        away = alice.login()
        away.sync()
        see(bob, room, alice.send(room, "behind the join"))
        distant.reconnect()
        both_heal(room, zoe, bob)
        see(alice, room, zoe.send(room, "healed"))
        read = bodies(room_messages(alice, room))
        causes = ["before", "on this side", "behind the join", "healed"]
        assert [text for text in read if text in causes] == causes
        assert read.index("before") < read.index("on the other side") < read.index("healed")
        # What is read below the join is no news to a device that was away.
        told = timeline(away.sync(filter='{"room":{"timeline":{"limit":100}}}'), room)
        assert "healed" in bodies(told)
        assert not {"before", "on this side"} & set(bodies(told))
        assert "m.room.create" not in [event["type"] for event in told]


@pytest.mark.parametrize("comes_first", ["eve", "zoe"])
def test_of_two_moderators_who_decide_at_once_both_sides_follow_the_same(distant, there, zoe, bob, comes_first):
    """Nothing of the room's state rests on their joins, but for what they do then."""
    eve = bob.register("eve")
    room = bob.create_room(preset="public_chat", room_version="11")
    joins = {"eve": lambda: eve.join(room), "zoe": lambda: zoe.join(room, query=via(there))}
    joins.pop(comes_first)()
    next(iter(joins.values()))()
    for reader in (zoe, bob):
        for moderator in (eve, zoe):
            until_joined(reader, room, moderator)
    levels = bob.state(room, "m.room.power_levels")
    levels["users"] |= {moderator.user_id: 90 for moderator in (eve, zoe)}
    levels["events"]["m.room.power_levels"] = 90
    bob.set_state(room, "m.room.power_levels", levels)
    until_state(zoe, room, "m.room.power_levels", "", levels)
    distant.cut_off()
    zoe.set_state(room, "m.room.power_levels", {**levels, "ban": 60})
    eve.set_state(room, "m.room.power_levels", {**levels, "ban": 70})
    distant.reconnect()
    both_heal(room, zoe, bob)
    assert zoe.state(room, "m.room.power_levels")["ban"] == bob.state(room, "m.room.power_levels")["ban"] == 70
