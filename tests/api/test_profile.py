"""Profiles (spec: Profiles)."""

import pytest

from harness.client import joined, of_type


def test_a_new_user_has_an_empty_or_default_profile(alice, nobody):
    profile = nobody.get("profile/{userId}", alice.user_id)
    assert set(profile) <= {"displayname"}


def test_set_and_get(alice, bob):
    alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "Alice ☀"})
    alice.put("profile/{userId}/{keyName}", alice.user_id, "avatar_url", json={"avatar_url": "mxc://example.org/abc"})
    whole = {"displayname": "Alice ☀", "avatar_url": "mxc://example.org/abc"}
    assert bob.get("profile/{userId}", alice.user_id) == whole
    for key, value in whole.items():
        assert bob.get("profile/{userId}/{keyName}", alice.user_id, key) == {key: value}


def test_another_users_profile_is_not_mine_to_set(alice, bob):
    path = "profile/{userId}/{keyName}"
    answer = alice.put(path, bob.user_id, "displayname", json={"displayname": "x"}, status=(400, 403))
    assert answer["errcode"] in ("M_FORBIDDEN", "M_UNKNOWN")


def test_unknown_user(alice):
    unknown = f"@nobody-at-all:{alice.server_name}"
    alice.get("profile/{userId}", unknown, status=404)
    alice.get("profile/{userId}/{keyName}", unknown, "displayname", status=404)


@pytest.mark.parametrize(
    "user",
    [
        "garbage",
        "@garbage",
        "garbage:elsewhere.test",
        "@x:no server",
        "@x:host/path",
        "@x:a_b",
        pytest.param("@x:host:99999", marks=pytest.mark.ours("Synapse takes ports that there are not")),
        pytest.param(f"@{'x' * 255}:elsewhere.test", marks=pytest.mark.ours("Synapse asks for it")),
    ],
)
def test_what_is_no_user(alice, user):
    alice.get("profile/{userId}", user, status=400, errcode="M_INVALID_PARAM")
    alice.get("profile/{userId}/{keyName}", user, "displayname", status=400, errcode="M_INVALID_PARAM")


def test_setting_the_same_again_reaches_rooms_that_show_something_else(alice, room):
    put = lambda: alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "Renamed"})
    put()
    alice.set_state(room, "m.room.member", {"membership": "join", "displayname": "Other"}, alice.user_id)
    put()
    assert alice.state(room, "m.room.member", alice.user_id)["displayname"] == "Renamed"


def test_a_change_reaches_the_rooms(alice, bob, room):
    bob.sync()
    alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "Renamed"})

    def renamed(answer):
        events = of_type(joined(answer, room).get("timeline", {}).get("events", []), "m.room.member")
        return [event for event in events if event["content"].get("displayname") == "Renamed"]

    event = bob.sync_until(renamed)[0]
    assert event["state_key"] == alice.user_id
    assert event["content"]["membership"] == "join"


def test_custom_field(alice, bob):
    path = "profile/{userId}/{keyName}"
    alice.put(path, alice.user_id, "org.example.burrow", json={"org.example.burrow": {"depth": 3}})
    assert bob.get(path, alice.user_id, "org.example.burrow") == {"org.example.burrow": {"depth": 3}}
    alice.delete(path, alice.user_id, "org.example.burrow")
    bob.get(path, alice.user_id, "org.example.burrow", status=404, errcode="M_NOT_FOUND")


@pytest.mark.parametrize("value", [7, {"a": 1}, ["x"], None])
@pytest.mark.parametrize("field", ["displayname", "avatar_url"])
def test_what_is_shown_is_a_string(alice, field, value):
    """Specification: "Servers MAY reject `null` values", and to treat them as a deletion they should not."""
    path = "profile/{userId}/{keyName}"
    shown = {field: "mxc://example.org/abc"}
    alice.put(path, alice.user_id, field, json=shown)
    answer = alice.put(path, alice.user_id, field, json={field: value}, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN")
    assert alice.get(path, alice.user_id, field) == shown


@pytest.mark.ours("Synapse lets guests change all of it")
@pytest.mark.parametrize("key, value", [("avatar_url", "mxc://example.org/abc"), ("org.example.burrow", {"depth": 3})])
def test_guests_change_their_display_name_only(nobody, key, value):
    guest = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    path = "profile/{userId}/{keyName}"
    guest.put(path, guest.user_id, "displayname", json={"displayname": "A guest"})
    assert nobody.get(path, guest.user_id, "displayname") == {"displayname": "A guest"}
    guest.put(path, guest.user_id, key, json={key: value}, status=403, errcode="M_FORBIDDEN")
    guest.delete(path, guest.user_id, key, status=403, errcode="M_FORBIDDEN")
    assert nobody.get("profile/{userId}", guest.user_id) == {"displayname": "A guest"}
    guest.delete(path, guest.user_id, "displayname")
    nobody.get(path, guest.user_id, "displayname", status=404, errcode="M_NOT_FOUND")


def test_a_profile_is_its_users_alone(alice, bob):
    path = "profile/{userId}/{keyName}"
    alice.put(path, alice.user_id, "displayname", json={"displayname": "Alice"})
    bob.delete(path, alice.user_id, "displayname", status=403, errcode="M_FORBIDDEN")
    assert bob.get(path, alice.user_id, "displayname") == {"displayname": "Alice"}
