"""State that no power would let pass is a malformed request (spec: `PUT /rooms/{roomId}/state/…`, status 400)."""

import pytest

from harness.client import unique

POWER = "m.room.power_levels"
MEMBER = "m.room.member"


@pytest.fixture
def room(alice, bob):
    room = alice.create_room(preset="public_chat", room_version="12")
    bob.join(room)
    return room


@pytest.mark.ours("Synapse has another code for some of it")
@pytest.mark.parametrize(
    "content",
    [
        {"ban": "fifty"},
        {"ban": "50"},
        {"users_default": None},
        {"users": []},
        {"users": {"bob": 50}},
        {"users": {"@bob:example.org": "50"}},
        {"events": {"m.x": "50"}},
        {"events": 50},
        {"notifications": {"room": {}}},
    ],
)
def test_power_levels(alice, room, content):
    before = alice.state(room, POWER)
    answer = alice.set_state(room, POWER, {**before, **content}, status=400, errcode="M_BAD_JSON")
    assert "authorisation rule" in answer["error"]
    assert alice.state(room, POWER) == before


@pytest.mark.ours("Synapse has another code for it")
def test_creators_have_no_power_level(alice, room):
    levels = alice.state(room, POWER)
    levels["users"] = {**levels.get("users", {}), alice.user_id: 100}
    alice.set_state(room, POWER, levels, status=400, errcode="M_BAD_JSON")


@pytest.mark.ours("Synapse has another code for it")
@pytest.mark.parametrize("content", [{}, {"membership": None}, {"membership": 5}, {"membership": "burrowed"}])
def test_memberships(alice, bob, room, content):
    for user in (alice, bob):
        alice.set_state(room, MEMBER, content, user.user_id, status=400, errcode="M_BAD_JSON")
        assert alice.state(room, MEMBER, user.user_id)["membership"] == "join"
    # The same as a message, which has no state key.
    alice.send(room, {"membership": "join"}, MEMBER, status=400, errcode="M_BAD_JSON")


def test_who_may_not_is_told_so_whatever_the_shape(alice, bob, carol, room):
    for user in (bob, carol):
        user.set_state(room, POWER, {"ban": "fifty"}, status=403, errcode="M_FORBIDDEN")
    carol.set_state(room, "m.room.create", {}, status=403, errcode="M_FORBIDDEN")
    # What is well-formed and too much is forbidden, as before.
    levels = alice.state(room, POWER)
    alice.set_state(room, POWER, {**levels, "users": {bob.user_id: 60}, "state_default": 50, "events": {}})
    bob.set_state(room, POWER, {**levels, "users": {bob.user_id: 70}}, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse takes the content for that of a new room")
@pytest.mark.parametrize("content", [{}, {"room_version": "12"}])
def test_a_room_is_created_once(alice, bob, room, content):
    for user in (alice, bob):
        user.set_state(room, "m.room.create", content, status=400, errcode="M_INVALID_PARAM")
        user.send(room, content, "m.room.create", status=400, errcode="M_INVALID_PARAM")
    assert alice.state(room, "m.room.create")["room_version"] == "12"


def test_a_version_without_knocking_forbids_it(alice, bob):
    room = alice.create_room(preset="private_chat", room_version="6")
    bob.post("knock/{roomIdOrAlias}", room, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse has another code for it")
def test_a_new_room_is_told_of_its_state(alice):
    body = {"name": unique("burrow"), "power_level_content_override": {"ban": "fifty"}}
    alice.post("createRoom", json=body, status=400, errcode="M_INVALID_ROOM_STATE")
    state = [{"type": MEMBER, "state_key": alice.user_id, "content": {"membership": "burrowed"}}]
    alice.post("createRoom", json={"initial_state": state}, status=400, errcode="M_INVALID_ROOM_STATE")
