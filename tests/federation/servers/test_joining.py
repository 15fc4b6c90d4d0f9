"""Users come into rooms of other servers, and both servers hold the same state."""

import pytest

from harness.client import bodies, of_type, timeline, unique
from harness.rooms import come_together, joined_members, until_joined, via

VERSIONS = [str(number) for number in range(1, 13)]


@pytest.mark.parametrize("version", VERSIONS)
def test_their_user_joins_our_room(here, alice, bob, version):
    come_together(alice, bob, here, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_user_joins_their_room(there, alice, bob, version):
    come_together(bob, alice, there, version)


def test_a_room_is_found_by_its_alias(here, there, alice, bob):
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        name = unique("alias")
        room = owner.create_room(preset="public_chat", room_alias_name=name)
        alias = f"#{name}:{server.name}"
        found = guest.get("directory/room/{roomAlias}", alias)
        assert found["room_id"] == room and server.name in found["servers"]
        assert guest.join(alias)["room_id"] == room


def test_their_messages_come(there, alice, bob):
    room = bob.create_room(preset="public_chat")
    alice.join(room, query=via(there))
    alice.sync()
    sent = [bob.send(room, f"message {number}") for number in range(20)]
    seen = []

    def all_seen(answer):
        seen.extend(of_type(timeline(answer, room), "m.room.message"))
        return len(seen) >= len(sent)

    alice.sync_until(all_seen, filter='{"room": {"timeline": {"limit": 50}}}')
    assert [event["event_id"] for event in seen] == sent
    assert bodies(seen) == [f"message {number}" for number in range(20)]


def test_a_second_user_joins_without_asking_anybody(there, here, alice, bob):
    room = bob.create_room(preset="public_chat")
    alice.join(room, query=via(there))
    until_joined(alice, room, bob)
    carol = here.client(here.base_url).register("carol")
    carol.join(room)
    assert carol.user_id in joined_members(alice, room)


def test_who_may_not_come_in_is_told_so(here, there, alice, bob):
    closed = alice.create_room(preset="private_chat")
    bob.join(closed, query=via(here), status=403, errcode="M_FORBIDDEN")
    closed = bob.create_room(preset="private_chat")
    alice.join(closed, query=via(there), status=403, errcode="M_FORBIDDEN")


def test_a_room_that_nobody_knows(there, alice):
    alice.join(f"!nothing:{there.name}", status=404)
