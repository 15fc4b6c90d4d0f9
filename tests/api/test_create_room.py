"""Room creation: presets, initial state and what is refused (spec: Creation)."""

import pytest

from harness.client import unique
from harness.specification import event_faults


def state_of(client, room):
    events = client.get("rooms/{roomId}/state", room)
    for event in events:
        assert not event_faults(event), (event, event_faults(event))
    return {(event["type"], event["state_key"]): event["content"] for event in events}


@pytest.mark.parametrize(
    "preset, join_rule, guest_access",
    [
        ("private_chat", "invite", "can_join"),
        ("trusted_private_chat", "invite", "can_join"),
        ("public_chat", "public", "forbidden"),
    ],
)
def test_presets(alice, bob, preset, join_rule, guest_access):
    room = alice.create_room(preset=preset, invite=[bob.user_id])
    state = state_of(alice, room)
    assert state["m.room.join_rules", ""]["join_rule"] == join_rule
    assert state["m.room.history_visibility", ""]["history_visibility"] == "shared"
    assert state.get(("m.room.guest_access", ""), {"guest_access": "forbidden"})["guest_access"] == guest_access
    assert state["m.room.member", alice.user_id]["membership"] == "join"
    assert state["m.room.member", bob.user_id]["membership"] == "invite"


def test_trusted_private_chat_makes_the_invited_equal(alice, bob):
    room = alice.create_room(preset="trusted_private_chat", invite=[bob.user_id], room_version="11")
    users = state_of(alice, room)["m.room.power_levels", ""]["users"]
    assert users[bob.user_id] == users[alice.user_id] == 100


def test_trusted_private_chat_in_version_12_makes_creators(alice, bob):
    room = alice.create_room(preset="trusted_private_chat", invite=[bob.user_id], room_version="12")
    state = state_of(alice, room)
    assert state["m.room.create", ""]["additional_creators"] == [bob.user_id]
    assert bob.user_id not in state["m.room.power_levels", ""].get("users", {})


def test_visibility_chooses_the_preset(alice):
    assert state_of(alice, alice.create_room(visibility="public"))["m.room.join_rules", ""]["join_rule"] == "public"
    assert state_of(alice, alice.create_room())["m.room.join_rules", ""]["join_rule"] == "invite"


def test_everything_at_once(alice, bob):
    alias = unique("everything")
    room = alice.create_room(
        name="The burrow",
        topic="Digging",
        room_alias_name=alias,
        invite=[bob.user_id],
        is_direct=True,
        creation_content={"m.federate": False, "type": "m.space"},
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
        power_level_content_override={"events_default": 10},
    )
    state = state_of(alice, room)
    assert state["m.room.name", ""]["name"] == "The burrow"
    assert state["m.room.topic", ""]["topic"] == "Digging"
    assert state["m.room.canonical_alias", ""]["alias"] == f"#{alias}:{alice.server_name}"
    assert state["m.room.create", ""]["m.federate"] is False
    assert state["m.room.create", ""]["type"] == "m.space"
    assert state["m.room.encryption", ""]["algorithm"] == "m.megolm.v1.aes-sha2"
    assert state["m.room.power_levels", ""]["events_default"] == 10
    assert state["m.room.member", bob.user_id]["is_direct"] is True


OURS = pytest.mark.ours("Synapse refuses it, fails inside, or sends what is null")
NULLS = ["is_direct", "power_level_content_override"]
MORE = ["name", "topic", "preset", "creation_content", "initial_state", "invite", "invite_3pid"]
NULLS += [pytest.param(name, marks=OURS) for name in MORE]


@pytest.mark.parametrize("name", NULLS)
def test_null_counts_as_absent(alice, name):
    room, usual = alice.create_room(**{name: None}, room_version="11"), alice.create_room(room_version="11")
    assert state_of(alice, room) == state_of(alice, usual)


@pytest.mark.ours("Synapse fails inside")
def test_null_for_a_state_key_is_the_empty_one(alice):
    events = [{"type": "org.example.colour", "state_key": None, "content": {"colour": "brown"}}]
    assert alice.state(alice.create_room(initial_state=events), "org.example.colour") == {"colour": "brown"}


def test_initial_state_wins_over_the_preset(alice):
    history = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = alice.create_room(preset="private_chat", initial_state=[history])
    assert state_of(alice, room)["m.room.history_visibility", ""]["history_visibility"] == "joined"


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
def test_every_room_version(alice, bob, version):
    room = alice.create_room(room_version=version, preset="public_chat")
    created = state_of(alice, room)["m.room.create", ""]
    assert created.get("room_version", "1") == version
    bob.join(room)
    event = alice.send(room, f"in version {version}")
    assert bob.get("rooms/{roomId}/event/{eventId}", room, event)["content"]["body"] == f"in version {version}"


def test_large_initial_state(alice):
    """Each event is as large as one may be, and all of them are more than an ordinary request may have."""
    content = {"text": "x" * 60_000}
    room = alice.create_room(
        initial_state=[{"type": "org.example.large", "state_key": str(key), "content": content} for key in range(8)]
    )
    assert all(alice.state(room, "org.example.large", str(key)) == content for key in range(8))


@pytest.mark.ours("Synapse has no such limit")
def test_a_room_is_not_created_with_ever_so_many_events(alice, bob):
    """Invites count as what is said of the room does."""
    events = [{"type": "a", "state_key": str(key), "content": {}} for key in range(1_001)]
    before = alice.get("joined_rooms")
    refused = [{"initial_state": events}, {"initial_state": events[:1_000], "invite": [bob.user_id]}]
    for body in refused:
        alice.post("createRoom", json=body, status=413, errcode="M_TOO_LARGE")
    assert alice.get("joined_rooms") == before
    room = alice.create_room(initial_state=events[:999], invite=[bob.user_id])
    assert alice.state(room, "a", "998") == {}
    assert alice.state(room, "m.room.member", bob.user_id)["membership"] == "invite"


def test_unknown_room_version(alice):
    alice.post("createRoom", json={"room_version": "burrow"}, status=400, errcode="M_UNSUPPORTED_ROOM_VERSION")


def test_taken_alias(alice):
    alias = unique("taken")
    alice.create_room(room_alias_name=alias)
    alice.post("createRoom", json={"room_alias_name": alias}, status=400, errcode="M_ROOM_IN_USE")


def test_a_refused_creation_leaves_nothing(alice):
    before = alice.get("joined_rooms")
    alias = unique("never")
    body = {"room_alias_name": alias, "invite": ["not a user"]}
    alice.post("createRoom", json=body, status=400)
    assert alice.get("joined_rooms") == before
    name = f"#{alias}:{alice.server_name}"
    alice.get("directory/room/{roomAlias}", name, status=404, errcode="M_NOT_FOUND")


@pytest.mark.ours("Synapse takes an unknown visibility and fails inside on state without a type")
@pytest.mark.parametrize(
    "body",
    [
        {"preset": "burrow"},
        {"visibility": "burrow"},
        {"invite": "nobody"},
        {"name": 7},
        {"room_version": 10},
        {"initial_state": [{"content": {}}]},
        {"room_alias_name": "with:colon"},
    ],
)
def test_malformed(alice, body):
    answer = alice.post("createRoom", json=body, status=400)
    assert answer["errcode"] in (
        "M_BAD_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNKNOWN", "M_INVALID_ROOM_STATE",
    )  # fmt: skip
