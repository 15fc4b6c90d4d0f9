"""Rooms that admit guests, and cease to (spec: Guest Access)."""

import pytest

from harness.client import unique


@pytest.fixture
def guest(nobody):
    return nobody.signed_in(nobody.post("register", query={"kind": "guest"}))


@pytest.fixture
def opened(alice, bob, guest):
    """A room with a guest in it, and the event that lets guests in."""
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    guest.join(room, status=403)
    event = alice.set_state(room, "m.room.guest_access", {"guest_access": "can_join"})
    guest.join(room)
    return room, event


def members(client, room):
    return set(client.get("rooms/{roomId}/joined_members", room)["joined"])


def redact(client, room, event):
    client.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, event, unique("txn"))


def test_guests_leave_when_the_room_is_closed_to_them(alice, bob, guest, opened):
    room, _ = opened
    alice.set_state(room, "m.room.guest_access", {"guest_access": "forbidden"})
    assert members(alice, room) == {alice.user_id, bob.user_id}
    assert alice.state(room, "m.room.member", guest.user_id)["membership"] == "leave"
    guest.join(room, status=403)


@pytest.mark.ours("Synapse lets them stay")
def test_guests_leave_when_what_let_them_in_is_redacted(alice, bob, guest, opened):
    room, event = opened
    redact(alice, room, alice.send(room, "not this"))
    assert members(alice, room) == {alice.user_id, bob.user_id, guest.user_id}
    redact(alice, room, event)
    assert members(alice, room) == {alice.user_id, bob.user_id}
    assert alice.state(room, "m.room.member", guest.user_id)["membership"] == "leave"
    guest.join(room, status=403)
