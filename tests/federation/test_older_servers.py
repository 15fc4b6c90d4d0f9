"""Servers that know nothing of the second versions of endpoints are asked by the first (server-server API, "Joining Rooms",
"Inviting to a room", "Leaving Rooms")."""

import json

import pytest

from harness.rooms import invited, left, state_ids, via


@pytest.fixture
def old(resident):
    resident.knows_v2 = False
    return resident


def test_a_room_of_theirs_is_joined(alice, old):
    copy = old.create()
    alice.join(copy.room_id, query=via(old))
    assert old.versions_asked("send_join") == ["v2", "v1"]
    alice.sync_until(lambda _: state_ids(alice, copy.room_id) == set(copy.state.values()))
    alice.send(copy.room_id, "hello")
    old.until(lambda: "hello" in old.bodies)


def test_an_invite_of_theirs_is_declined(server, alice, old):
    copy = old.create("invite")
    assert old.invite(server, copy, alice.user_id)[0] == 200
    alice.sync_until(lambda answer: invited(answer, copy.room_id))
    alice.leave(copy.room_id)
    assert old.versions_asked("send_leave") == ["v2", "v1"]
    alice.sync_until(lambda answer: left(answer, copy.room_id))
    event = old.events[copy.state["m.room.member", alice.user_id]]
    assert event["content"]["membership"] == "leave"


@pytest.mark.parametrize("room_version", ["1", "2"])
def test_they_are_invited(alice, old, room_version):
    room, user = alice.create_room(preset="private_chat", name="The burrow", room_version=room_version), old.user()
    alice.post("rooms/{roomId}/invite", room, json={"user_id": user})
    assert old.versions_asked("invite") == ["v2", "v1"]
    (request,) = [request for request in old.requests if "/v1/invite/" in request.target]
    event = json.loads(request.body)
    assert (event["content"]["membership"], event["state_key"]) == ("invite", user)
    shown = {state["type"]: state["content"] for state in event["unsigned"]["invite_room_state"]}
    assert shown["m.room.name"] == {"name": "The burrow"}
    assert alice.state(room, "m.room.member", user)["membership"] == "invite"


def test_what_they_cannot_be_invited_to_is_not_offered(alice, old):
    """Specification: "If the room version is "1" or "2"", for in the first version none is told."""
    room, user = alice.create_room(preset="private_chat", room_version="3"), old.user()
    alice.post("rooms/{roomId}/invite", room, json={"user_id": user}, status=(404, 502))
    assert old.versions_asked("invite") == ["v2"]
    alice.state(room, "m.room.member", user, status=404)
