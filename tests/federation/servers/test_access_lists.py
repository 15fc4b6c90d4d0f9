"""Rooms that shut a server out: nothing of it is taken in, whatever the case of its name and its port.

All servers here are called `localhost` and a port, but one of ours, which is called by its address.
"""

import pytest

from harness.client import bodies
from harness.federated import Warren
from harness.rooms import everything, joined_members, meet, see, until_state, via
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

ACL = "m.room.server_acl"
SHUT_OUT = {"allow": ["*"], "deny": ["127.0.0.?"]}
LET_IN = {"allow": ["*"], "deny": []}


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


def says_while_shut_out(owner, guest, server, leaves):
    """What the guest said last in a room whose owner has refused it: the room and the event, which is delivered by then."""
    room, other_room = (meet(owner, guest, server, room_version="11") for _ in range(2))
    owner.sync()
    owner.set_state(room, ACL, SHUT_OUT)
    until_state(guest, room, ACL, "", SHUT_OUT)
    guest.send(room, "first")
    said = guest.send(room, "last")
    if leaves:
        guest.leave(room)
    # It comes in order.
    see(owner, other_room, guest.send(other_room, "elsewhere"))
    assert not {"first", "last"} & set(bodies(everything(owner, room)))
    assert guest.user_id in joined_members(owner, room)
    return room, said


def test_what_we_said_meanwhile_is_heard_when_we_are_let_in_again(there, bob, zoe):
    room, said = says_while_shut_out(bob, zoe, there, leaves=False)
    bob.set_state(room, ACL, LET_IN)
    # Nobody here says anything more.
    see(bob, room, said)
    assert bodies(everything(bob, room)) == ["first", "last"]
    # Both servers go on from there.
    see(zoe, room, bob.send(room, "heard"))
    see(bob, room, zoe.send(room, "at last"))


def test_that_we_left_meanwhile_is_heard_when_we_are_let_in_again(there, bob, zoe):
    room, _ = says_while_shut_out(bob, zoe, there, leaves=True)
    bob.set_state(room, ACL, LET_IN)

    def is_gone():
        # What is said at once may have crossed with the leave, for all that her server knows.
        bob.send(room, "are you there?")
        return zoe.user_id not in joined_members(bob, room)

    until(is_gone)
    heard = bodies(everything(bob, room))
    assert heard.count("first") == heard.count("last") == 1
    # She may come back.
    zoe.join(room, query=via(there))
    see(bob, room, zoe.send(room, "back"))
