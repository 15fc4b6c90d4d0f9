"""Replacing a room by one of another version (spec: Room Upgrades)."""

import pytest

from harness.client import of_type, timeline, unique

UPGRADE = "rooms/{roomId}/upgrade"


def upgrade(client, room, version, **more):
    return client.post(UPGRADE, room, json={"new_version": version}, **more)["replacement_room"]


def create_of(client, room):
    return of_type(client.get("rooms/{roomId}/state", room), "m.room.create")[0]


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
def test_to_every_version(alice, bob, room, version):
    bob.sync()
    replacement = upgrade(alice, room, version)
    create = create_of(alice, replacement)["content"]
    assert create["room_version"] == version
    assert create["predecessor"]["room_id"] == room
    assert alice.state(replacement, "m.room.name") == {"name": "The burrow"}
    assert alice.state(replacement, "m.room.join_rules")["join_rule"] == "invite"
    tombstone = bob.sync_until(lambda answer: of_type(timeline(answer, room), "m.room.tombstone"))[0]
    assert tombstone["content"]["replacement_room"] == replacement
    if "event_id" in create["predecessor"]:
        assert create["predecessor"]["event_id"] == tombstone["event_id"]
    alice.invite(replacement, bob)
    bob.join(replacement)
    bob.send(replacement, "here we are")
    bob.send(room, "still here?", status=403, errcode="M_FORBIDDEN")


def test_null_for_additional_creators_is_none(alice, room):
    body = {"new_version": "12", "additional_creators": None}
    replacement = alice.post(UPGRADE, room, json=body)["replacement_room"]
    assert "additional_creators" not in create_of(alice, replacement)["content"]


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
def test_from_every_version(alice, version):
    room = alice.create_room(room_version=version, topic="Carrots", preset="public_chat")
    replacement = upgrade(alice, room, "12")
    assert alice.state(replacement, "m.room.topic")["topic"] == "Carrots"
    assert alice.state(replacement, "m.room.join_rules") == {"join_rule": "public"}


def test_aliases_and_the_directory_follow(alice, bob):
    name = unique("burrow")
    room = alice.create_room(room_alias_name=name, visibility="public", room_version="11")
    replacement = upgrade(alice, room, "12")
    alias = f"#{name}:{alice.server_name}"
    assert bob.get("directory/room/{roomAlias}", alias)["room_id"] == replacement
    assert alice.state(replacement, "m.room.canonical_alias")["alias"] == alias
    assert "alias" not in alice.state(room, "m.room.canonical_alias")
    assert alice.get("directory/list/room/{roomId}", replacement)["visibility"] == "public"
    assert alice.get("directory/list/room/{roomId}", room)["visibility"] == "private"


def test_bans_follow(alice, carol, room):
    alice.post("rooms/{roomId}/ban", room, json={"user_id": carol.user_id, "reason": "digging"})
    replacement = upgrade(alice, room, "12")
    member = alice.state(replacement, "m.room.member", carol.user_id)
    assert (member["membership"], member["reason"]) == ("ban", "digging")
    carol.join(replacement, status=403, errcode="M_FORBIDDEN")


def test_additional_creators(alice, bob, room):
    replacement = alice.post(
        UPGRADE, room, json={"new_version": "12", "additional_creators": [bob.user_id]}
    )["replacement_room"]
    assert create_of(alice, replacement)["content"]["additional_creators"] == [bob.user_id]
    alice.post(
        UPGRADE, replacement, json={"new_version": "12", "additional_creators": ["bob"]}, status=400
    )


def test_tags_follow(alice, room):
    tag = "user/{userId}/rooms/{roomId}/tags/{tag}"
    alice.put(tag, alice.user_id, room, "m.favourite", json={"order": 0.5})
    replacement = upgrade(alice, room, "12")
    tags = alice.get("user/{userId}/rooms/{roomId}/tags", alice.user_id, replacement)["tags"]
    assert tags == {"m.favourite": {"order": 0.5}}


def test_tags_follow_to_a_room_made_by_hand(alice, room):
    """Its creator is in it before the old room says that it is replaced."""
    alice.put("user/{userId}/rooms/{roomId}/tags/{tag}", alice.user_id, room, "m.favourite", json={"order": 0.5})
    replacement = alice.create_room(creation_content={"predecessor": {"room_id": room}})
    alice.set_state(room, "m.room.tombstone", {"body": "We have moved", "replacement_room": replacement})
    tags = alice.get("user/{userId}/rooms/{roomId}/tags", alice.user_id, replacement)["tags"]
    assert tags == {"m.favourite": {"order": 0.5}}


def test_aliases_lead_to_a_room_made_by_hand_when_somebody_comes_into_it(alice, bob, room):
    alias = f"#{unique('burrow')}:{alice.server_name}"
    alice.put("directory/room/{roomAlias}", alias, json={"room_id": room})
    replacement = alice.create_room(preset="public_chat", creation_content={"predecessor": {"room_id": room}})
    bob.join(replacement)
    assert bob.get("directory/room/{roomAlias}", alias)["room_id"] == room
    alice.set_state(room, "m.room.tombstone", {"body": "We have moved", "replacement_room": replacement})
    bob.leave(replacement)
    bob.join(replacement)
    assert bob.get("directory/room/{roomAlias}", alias)["room_id"] == replacement


def test_an_unknown_version(alice, room):
    alice.post(UPGRADE, room, json={"new_version": "burrow"}, status=400, errcode="M_UNSUPPORTED_ROOM_VERSION")


@pytest.mark.parametrize("body", [{}, {"new_version": 12}, {"new_version": "12", "additional_creators": "me"}])
def test_malformed_requests(alice, room, body):
    answer = alice.post(UPGRADE, room, json=body, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM")


def test_who_may_not(alice, bob, carol, room):
    bob.post(UPGRADE, room, json={"new_version": "12"}, status=403, errcode="M_FORBIDDEN")
    carol.post(UPGRADE, room, json={"new_version": "12"}, status=403, errcode="M_FORBIDDEN")
    alice.post(UPGRADE, "!none:localhost", json={"new_version": "12"}, status=(403, 404))
