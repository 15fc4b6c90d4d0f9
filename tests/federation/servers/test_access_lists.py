"""Rooms that shut a server out: nothing of it is taken in, whatever the case of its name and its port.

All servers here are called `localhost` and a port, but one of ours, which is called by its address.
"""

import pytest

from harness.client import bodies
from harness.federated import Warren
from harness.rooms import meet, see, until_state, via
from harness.senders import room_messages
from harness.server import sound


@pytest.fixture
def numbered(authority, tmp_path):
    with sound(Warren(tmp_path / "numbered", authority, host="127.0.0.1")) as server:
        yield server


@pytest.fixture
def zoe(numbered):
    return numbered.client(numbered.base_url).register("zoe")


def says_in_vain(guest, owner, room, other_room):
    """The owner's server takes in nothing that is said in the room. What is said elsewhere later comes in order."""
    guest.send(room, "let me in")
    see(owner, other_room, guest.send(other_room, "they do not let me in"))
    assert "let me in" not in bodies(room_messages(owner, room))


def shut_out(owner, guest, server, content):
    """The guest's server is shut out of one of two common rooms, and let in again."""
    room, other_room = (meet(owner, guest, server, room_version="11") for _ in range(2))
    owner.sync()
    owner.set_state(room, "m.room.server_acl", content)
    until_state(guest, room, "m.room.server_acl", "", content)
    says_in_vain(guest, owner, room, other_room)
    carol = guest.register("carol")
    # Her server is in the room, and she comes in there; nobody elsewhere hears of it.
    carol.join(room)
    see(owner, other_room, guest.send(other_room, "nor her"))
    found = owner.get("rooms/{roomId}/members", room)["chunk"]
    assert carol.user_id not in [event["state_key"] for event in found]
    owner.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": []})
    until_state(guest, room, "m.room.server_acl", "", {"allow": ["*"], "deny": []})
    see(owner, room, guest.send(room, "at last"))


def test_they_shut_our_server_out(there, bob, zoe):
    shut_out(bob, zoe, there, {"allow": ["*"], "deny": ["127.0.0.?"]})


def test_they_shut_out_who_is_called_by_an_address(there, bob, zoe):
    shut_out(bob, zoe, there, {"allow": ["*"], "deny": [], "allow_ip_literals": False})


def test_we_shut_their_server_out(numbered, bob, zoe):
    shut_out(zoe, bob, numbered, {"allow": ["*"], "deny": ["LOCALHOST"]})


def test_we_let_in_only_those_on_the_list(numbered, bob, zoe):
    shut_out(zoe, bob, numbered, {"allow": ["127.*", "*.Example.org"], "deny": []})


def test_who_is_shut_out_cannot_come_in(numbered, there, bob, zoe):
    for owner, guest, server, name in [(zoe, bob, numbered, "LocalHost"), (bob, zoe, there, "127.0.0.1")]:
        room = owner.create_room(preset="public_chat")
        owner.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": [name]})
        guest.join(room, query=via(server), status=403, errcode="M_FORBIDDEN")
