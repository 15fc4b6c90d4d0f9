"""Account data and room tags (spec: Client Config, Room Tagging)."""

import pytest

from harness.client import joined, of_type

PATH = "user/{userId}/account_data/{type}"
ROOM_PATH = "user/{userId}/rooms/{roomId}/account_data/{type}"


def test_set_and_get(alice):
    alice.put(PATH, alice.user_id, "org.example.colour", json={"colour": "brown"})
    assert alice.get(PATH, alice.user_id, "org.example.colour") == {"colour": "brown"}
    alice.put(PATH, alice.user_id, "org.example.colour", json={"colour": "grey"})
    assert alice.get(PATH, alice.user_id, "org.example.colour") == {"colour": "grey"}


def test_set_and_get_in_a_room(alice, room):
    alice.put(ROOM_PATH, alice.user_id, room, "org.example.colour", json={"colour": "brown"})
    assert alice.get(ROOM_PATH, alice.user_id, room, "org.example.colour") == {"colour": "brown"}
    alice.get(PATH, alice.user_id, "org.example.colour", status=404, errcode="M_NOT_FOUND")


def test_missing(alice, room):
    alice.get(PATH, alice.user_id, "org.example.none", status=404, errcode="M_NOT_FOUND")
    alice.get(ROOM_PATH, alice.user_id, room, "org.example.none", status=404, errcode="M_NOT_FOUND")


def test_another_users_data_is_not_mine(alice, bob, room):
    alice.put(PATH, bob.user_id, "org.example.a", json={}, status=403, errcode="M_FORBIDDEN")
    alice.get(PATH, bob.user_id, "org.example.a", status=403, errcode="M_FORBIDDEN")
    alice.put(ROOM_PATH, bob.user_id, room, "org.example.a", json={}, status=403, errcode="M_FORBIDDEN")
    alice.get(ROOM_PATH, bob.user_id, room, "org.example.a", status=403, errcode="M_FORBIDDEN")


@pytest.mark.parametrize("type", ["m.fully_read", "m.push_rules"])
def test_types_that_the_server_manages(alice, room, type):
    path, values = (PATH, ()) if type == "m.push_rules" else (ROOM_PATH, (room,))
    answer = alice.put(path, alice.user_id, *values, type, json={"a": 1}, status=405)
    assert answer["errcode"] == "M_BAD_JSON"


@pytest.mark.ours("Synapse takes 50 KiB")
def test_much_is_kept(alice, room):
    rooms = {f"@ghost_{number}:bridge.example": [f"!{number:x<43}"] for number in range(10_000)}
    alice.put(PATH, alice.user_id, "m.direct", json=rooms)
    assert alice.get(PATH, alice.user_id, "m.direct") == rooms
    alice.put(ROOM_PATH, alice.user_id, room, "org.example.much", json=rooms)
    assert alice.get(ROOM_PATH, alice.user_id, room, "org.example.much") == rooms


def text_of(size):
    """Content whose JSON has so many bytes."""
    return {"text": "x" * (size - len('{"text": ""}'))}


@pytest.mark.ours("Synapse takes 50 KiB")
@pytest.mark.parametrize("kind, most", [("user", 2 * 1024 * 1024), ("guest", 256 * 1024)])
def test_more_than_that_is_refused(alice, nobody, kind, most):
    """A megabyte of anybody with an account; less of a guest, who is somebody else tomorrow."""
    user = alice if kind == "user" else nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    for size in (most // 2, most):
        user.put(PATH, user.user_id, "org.example.a", json=text_of(size))
        assert user.get(PATH, user.user_id, "org.example.a") == text_of(size)
    user.put(PATH, user.user_id, "org.example.a", json=text_of(most + 1), status=413, errcode="M_TOO_LARGE")
    assert user.get(PATH, user.user_id, "org.example.a") == text_of(most), "it is what it was"


@pytest.mark.ours("Synapse takes 50 KiB")
def test_more_than_that_is_refused_in_a_room(alice, room):
    values = (alice.user_id, room, "org.example.a")
    alice.put(ROOM_PATH, *values, json=text_of(1024 * 1024))
    alice.put(ROOM_PATH, *values, json=text_of(2 * 1024 * 1024 + 1), status=413, errcode="M_TOO_LARGE")
    assert alice.get(ROOM_PATH, *values) == text_of(1024 * 1024)


def test_the_push_rules_of_who_never_changed_them(alice):
    assert alice.get(PATH, alice.user_id, "m.push_rules") == alice.get("pushrules/")


def test_content_is_an_object(alice):
    for body in ([], "text", 3):
        answer = alice.put(PATH, alice.user_id, "org.example.a", json=body, status=400)
        assert answer["errcode"] in ("M_BAD_JSON", "M_NOT_JSON", "M_INVALID_PARAM")


def test_nobody_ignores_themselves(alice, bob, room):
    for ignored in ({alice.user_id: {}}, {bob.user_id: {}, alice.user_id: {}}):
        body = {"ignored_users": ignored}
        alice.put(PATH, alice.user_id, "m.ignored_user_list", json=body, status=400, errcode="M_INVALID_PARAM")
    alice.get(PATH, alice.user_id, "m.ignored_user_list", status=404)
    # Of a room such a list says nothing.
    alice.put(ROOM_PATH, alice.user_id, room, "m.ignored_user_list", json=body)
    alice.sync()
    event_id = alice.send(room, "to my other devices")
    assert event_id in [event["event_id"] for event in joined(alice.sync(), room)["timeline"]["events"]]


def test_a_bad_room_id(alice):
    answer = alice.put(ROOM_PATH, alice.user_id, "burrow", "org.example.a", json={}, status=400)
    assert answer["errcode"] == "M_INVALID_PARAM"


def test_changes_reach_other_devices_by_sync(alice, room):
    other = alice.login()
    other.sync()
    alice.put(PATH, alice.user_id, "org.example.colour", json={"colour": "brown"})
    alice.put(ROOM_PATH, alice.user_id, room, "org.example.depth", json={"depth": 3})

    seen = {}

    def both(answer):
        for event in answer.get("account_data", {}).get("events", []):
            seen[event["type"]] = event["content"]
        for event in joined(answer, room).get("account_data", {}).get("events", []):
            seen[event["type"]] = event["content"]
        return {"org.example.colour", "org.example.depth"} <= set(seen)

    other.sync_until(both)
    assert seen["org.example.colour"] == {"colour": "brown"}
    assert seen["org.example.depth"] == {"depth": 3}
    assert "account_data" not in other.sync() or not other.sync()["account_data"]["events"]


def test_tags(alice, room):
    tags = "user/{userId}/rooms/{roomId}/tags"
    assert alice.get(tags, alice.user_id, room) == {"tags": {}}
    alice.put(tags + "/{tag}", alice.user_id, room, "m.favourite", json={"order": 0.25})
    alice.put(tags + "/{tag}", alice.user_id, room, "u.work", json={})
    assert alice.get(tags, alice.user_id, room) == {"tags": {"m.favourite": {"order": 0.25}, "u.work": {}}}
    alice.delete(tags + "/{tag}", alice.user_id, room, "u.work")
    assert alice.get(tags, alice.user_id, room) == {"tags": {"m.favourite": {"order": 0.25}}}


def test_null_for_an_order_is_none(alice, room):
    tags = "user/{userId}/rooms/{roomId}/tags"
    alice.put(tags + "/{tag}", alice.user_id, room, "u.work", json={"order": None})
    assert alice.get(tags, alice.user_id, room) == {"tags": {"u.work": {}}}


def test_tags_of_others(alice, bob, room):
    tag = "user/{userId}/rooms/{roomId}/tags/{tag}"
    alice.put(tag, alice.user_id, room, "u.work", json={})
    bob.delete(tag, alice.user_id, room, "u.work", status=403, errcode="M_FORBIDDEN")
    assert alice.get("user/{userId}/rooms/{roomId}/tags", alice.user_id, room) == {"tags": {"u.work": {}}}


def test_tags_come_by_sync(alice, room):
    alice.sync()
    alice.put("user/{userId}/rooms/{roomId}/tags/{tag}", alice.user_id, room, "m.lowpriority", json={})
    events = alice.sync_until(lambda a: of_type(joined(a, room).get("account_data", {}).get("events", []), "m.tag"))
    assert events[0]["content"] == {"tags": {"m.lowpriority": {}}}


def test_another_users_tags_are_not_mine(alice, bob, room):
    tags = "user/{userId}/rooms/{roomId}/tags"
    alice.get(tags, bob.user_id, room, status=403, errcode="M_FORBIDDEN")
    alice.put(tags + "/{tag}", bob.user_id, room, "u.x", json={}, status=403, errcode="M_FORBIDDEN")
