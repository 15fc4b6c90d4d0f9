"""What other servers say that is odd in one place: it is left out, and nobody loses what is said of others.

Each answer that a client gets is judged against the specification's schemas, as strict clients do, which take it as a whole.
"""

import pytest

from harness.client import unique
from harness.events import id_of, nested
from harness.participant import path
from harness.peer import now_ms
from harness.rooms import see

QUERY, CLAIM = path("v1/user/keys/query"), path("v1/user/keys/claim")
DIRECTORY, PROFILE, LIST = path("v1/query/directory"), path("v1/query/profile"), path("v1/publicRooms")
HIERARCHY = "/_matrix/client/v1/rooms/{roomId}/hierarchy"
PUBLIC = "A" * 43


def device(user, device_id, **changes):
    keys = {"user_id": user, "device_id": device_id, "algorithms": [], "keys": {f"ed25519:{device_id}": PUBLIC}}
    return {**keys, "signatures": {}, **changes}


def signing_key(user, usage="master", **changes):
    return {"user_id": user, "usage": [usage], "keys": {f"ed25519:{PUBLIC}": PUBLIC}, **changes}


# What is said of Bob's devices, and which of them are left.
DEVICES = {
    "null": (lambda bob: None, None),
    "a list": (lambda bob: [], None),
    "a number": (lambda bob: 5, None),
    "devices that are none": (lambda bob: {"D": 5, "E": None, "B": device(bob, "B")}, ["B"]),
    "a device without a name": (lambda bob: {"": {}, "B": device(bob, "B")}, ["B"]),
    "another user's": (lambda bob: {"D": device("@eve:elsewhere.test", "D"), "B": device(bob, "B")}, ["B"]),
    "another device's": (lambda bob: {"D": device(bob, "E"), "B": device(bob, "B")}, ["B"]),
    "no algorithms": (lambda bob: {"D": device(bob, "D", algorithms="x")}, []),
    "keys that are none": (lambda bob: {"D": device(bob, "D", keys={"ed25519:D": 5})}, []),
    "signatures that are none": (lambda bob: {"D": device(bob, "D", signatures={bob: 5})}, []),
    "a huge number": (lambda bob: {"D": device(bob, "D", x=10**30), "B": device(bob, "B")}, ["B"]),
    "deep nesting": (lambda bob: {"D": device(bob, "D", x=nested(200)), "B": device(bob, "B")}, ["B"]),
    "a number and nothing else": (lambda bob: 10**30, None),
    "nesting and nothing else": (lambda bob: nested(200, "array"), None),
    "a name that is none": (lambda bob: {"D": device(bob, "D", unsigned={"device_display_name": 5})}, ["D"]),
}


@pytest.mark.parametrize("odd", DEVICES)
def test_keys_of_devices(alice, peer, odd):
    bob, carl, dora = (f"@{name}:{peer.name}" for name in ("bob", "carl", "dora"))
    said, left = DEVICES[odd]
    of_all = {bob: said(bob), carl: {"C": device(carl, "C")}, "": {}, dora: {"D": device(dora, "D")}}
    peer.answers[QUERY] = lambda _: (200, {"device_keys": of_all, "master_keys": None})
    found = alice.post("keys/query", json={"device_keys": {bob: [], carl: [], alice.user_id: []}})
    assert found["device_keys"][carl] == {"C": device(carl, "C")} and found["failures"] == {}
    assert set(found["device_keys"]) - {bob} == {carl, alice.user_id}, "nobody asked for others"
    assert (list(found["device_keys"][bob]) if bob in found["device_keys"] else None) == left
    assert "unsigned" not in found["device_keys"].get(bob, {}).get("D", {})


def test_cross_signing_keys(alice, peer):
    bob, carl = f"@bob:{peer.name}", f"@carl:{peer.name}"
    for odd in (None, [], 5, {}, signing_key(carl), signing_key(bob, "user_signing"), signing_key(bob, keys={"ed25519:x": "x"})):
        keys = {"master_keys": {bob: odd, carl: signing_key(carl)}, "self_signing_keys": {bob: odd}}
        peer.answers[QUERY] = lambda _, keys=keys: (200, {"device_keys": {}, **keys})
        found = alice.post("keys/query", json={"device_keys": {bob: [], carl: []}})
        assert found["master_keys"] == {carl: signing_key(carl)} and found["self_signing_keys"] == {}, odd
    keys = {"master_keys": {bob: signing_key(bob)}, "self_signing_keys": {bob: signing_key(bob, "self_signing")}}
    peer.answers[QUERY] = lambda _: (200, {"device_keys": {}, **keys})
    found = alice.post("keys/query", json={"device_keys": {bob: []}})
    assert {name: found[name] for name in keys} == keys


KEY = {"key": "k", "signatures": {}}
GOOD = {"signed_curve25519:A": KEY}
# What is said of Bob's device B, beside a device that was not asked for, and what is left of it.
CLAIMED = [
    (None, None),
    ([], None),
    ({**GOOD, "nameless": KEY, ":B": KEY, "signed_curve25519:": KEY}, GOOD),
    ({**GOOD, "signed_curve25519:B": None, "signed_curve25519:C": 5, "signed_curve25519:D": {"key": 5}}, GOOD),
    ({**GOOD, "signed_curve25519:B": {"key": "k"}, "signed_curve25519:C": {**KEY, "signatures": {"@a:b": 5}}}, GOOD),
    ({**GOOD, "signed_curve25519:B": {**KEY, "x": 10**30}, "signed_curve25519:C": {**KEY, "x": nested(200)}}, GOOD),
    ({**GOOD, "curve25519:B": "k"}, {**GOOD, "curve25519:B": "k"}),
]


@pytest.mark.parametrize("said, left", CLAIMED)
def test_keys_that_are_claimed(alice, peer, said, left):
    bob, carl = f"@bob:{peer.name}", f"@carl:{peer.name}"
    of_all = {bob: {"B": said, "OTHER": GOOD}, carl: {"C": GOOD}, "": {}, f"@dora:{peer.name}": {"D": GOOD}}
    peer.answers[CLAIM] = lambda _: (200, {"one_time_keys": of_all})
    wanted = {bob: {"B": "signed_curve25519"}, carl: {"C": "signed_curve25519"}}
    found = alice.post("keys/claim", json={"one_time_keys": wanted})
    assert found["one_time_keys"].get(bob, {}).get("B") == left and "OTHER" not in found["one_time_keys"].get(bob, {})
    assert found["one_time_keys"][carl] == {"C": GOOD} and set(found["one_time_keys"]) <= {bob, carl}


def row(localpart, peer, /, **more):
    """A room of a directory."""
    shown = {"room_id": f"!{localpart}:{peer.name}", "num_joined_members": 3, "world_readable": False, "guest_can_join": True}
    return {**shown, **more}


def test_directories(alice, peer):
    good = row("good", peer, name="Good", canonical_alias=f"#good:{peer.name}", avatar_url=f"mxc://{peer.name}/a")
    odd = row("odd", peer, canonical_alias="garbage", avatar_url=5, name=None, topic={}, num_joined_members=-1)
    bare = {"room_id": f"!bare:{peer.name}"}
    chunk = [5, None, {}, {"room_id": "garbage"}, {"name": "nowhere"}, good, odd, bare]
    page = {"chunk": chunk, "next_batch": 5, "total_room_count_estimate": "many"}
    peer.answers[LIST] = lambda _: (200, page)
    for ask in (alice.get, alice.post):
        found = ask("publicRooms", query={"server": peer.name})
        assert [shown["room_id"] for shown in found["chunk"]] == [good["room_id"], odd["room_id"], bare["room_id"]]
        assert found["chunk"][0] == good and set(found) == {"chunk"}
        assert not {"canonical_alias", "avatar_url", "name", "topic"} & set(found["chunk"][1])
    for page in ({"chunk": None}, {"chunk": {}}, [], {}):
        peer.answers[LIST] = lambda _, page=page: (200, page)
        alice.post("publicRooms", query={"server": peer.name}, status=502, errcode="M_UNKNOWN")


def test_a_room_that_shows_what_it_likes(server, alice, resident):
    """One of its members may, whose server checks nothing: it costs nobody the page on which it is shown."""
    name = unique("listed")
    room = alice.create_room(preset="public_chat", visibility="public", room_version="11", name=name)
    copy = resident.join(server, room)
    power = alice.state(room, "m.room.power_levels")
    alice.set_state(room, "m.room.power_levels", {**power, "users": {**power["users"], copy.user: 100}})
    resident.catch_up(server, copy)
    allow = [{"type": "m.room_membership", "room_id": "garbage"}, {"type": "m.room_membership", "room_id": room}]
    for type, content in (
        ("m.room.canonical_alias", {"alias": "garbage"}),
        ("m.room.avatar", {"url": "garbage"}),
        ("m.room.join_rules", {"join_rule": "restricted", "allow": allow}),
    ):
        event = resident.next(copy, type, content, state_key="")
        assert resident.transact(server, [event]) == {id_of(event): {}}
        see(alice, room, id_of(event))
    (entry,) = alice.post("publicRooms", json={"filter": {"generic_search_term": name}})["chunk"]
    assert entry["room_id"] == room and not {"canonical_alias", "avatar_url"} & set(entry)
    (entry,) = alice.get(HIERARCHY, room)["rooms"]
    assert entry["allowed_room_ids"] == [room] and "canonical_alias" not in entry


PROFILES = [
    ({"displayname": 5, "avatar_url": 5, "m.tz": "Europe/Berlin"}, {"m.tz": "Europe/Berlin"}),
    ({"displayname": "Bob", "avatar_url": None}, {"displayname": "Bob"}),
    ({"displayname": "Bob", "m.tz": 5}, {"displayname": "Bob"}),
    ({"displayname": {}, "avatar_url": "mxc://a.test/b"}, {"avatar_url": "mxc://a.test/b"}),
    ({"displayname": [], "avatar_url": "garbage"}, {}),
    ({}, {}),
]


@pytest.mark.parametrize("said, left", PROFILES)
def test_profiles(alice, peer, said, left):
    bob = f"@bob:{peer.name}"
    peer.answers[PROFILE] = lambda _: (200, said)
    assert alice.get("profile/{userId}", bob) == left
    for name in ("displayname", "avatar_url"):
        if name in left:
            assert alice.get("profile/{userId}/{keyName}", bob, name) == {name: left[name]}
        else:
            alice.get("profile/{userId}/{keyName}", bob, name, status=404, errcode="M_NOT_FOUND")


MISSING = [(404, b"<html>"), (404, b""), (404, {}), (404, {"errcode": "M_UNRECOGNIZED", "error": ""})]


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_not_there(alice, peer, missing):
    """Whatever the other server says, or a proxy before it. An error without a sentence fits no schema."""
    bob, alias = f"@bob:{peer.name}", f"#burrow:{peer.name}"
    peer.answers[PROFILE] = peer.answers[DIRECTORY] = lambda _: missing
    alice.get("profile/{userId}", bob, status=404, errcode="M_NOT_FOUND")
    alice.get("profile/{userId}/{keyName}", bob, "displayname", status=404, errcode="M_NOT_FOUND")
    alice.get("directory/room/{roomAlias}", alias, status=404, errcode="M_NOT_FOUND")
    alice.join(alias, status=404, errcode="M_NOT_FOUND")
    peer.answers[LIST] = lambda _: missing
    alice.post("publicRooms", query={"server": peer.name}, status=404)


def test_nobody_is_asked_for_what_is_no_user_or_alias(alice, peer):
    for user in (f"bob:{peer.name}", f"@{'b' * 255}:{peer.name}", f"#bob:{peer.name}"):
        alice.get("profile/{userId}", user, status=400, errcode="M_INVALID_PARAM")
        alice.get("profile/{userId}/{keyName}", user, "displayname", status=400, errcode="M_INVALID_PARAM")
    for alias in (f"burrow:{peer.name}", f"#{'b' * 255}:{peer.name}", f"@burrow:{peer.name}"):
        alice.get("directory/room/{roomAlias}", alias, status=400, errcode="M_INVALID_PARAM")
    assert peer.requests == []


@pytest.mark.parametrize("servers", [[5, None, "no name!!", {}, "third.test"], ["third.test", []]])
def test_servers_of_an_alias(alice, peer, servers):
    room = f"!burrow:{peer.name}"
    peer.answers[DIRECTORY] = lambda _: (200, {"room_id": room, "servers": servers})
    found = alice.get("directory/room/{roomAlias}", f"#burrow:{peer.name}")
    assert found == {"room_id": room, "servers": ["third.test", peer.name]}
    peer.answers[DIRECTORY] = lambda _: (200, {"room_id": room, "servers": None})
    assert alice.get("directory/room/{roomAlias}", f"#burrow:{peer.name}")["servers"] == [peer.name]


def test_transactions_with_null_for_a_list(server, alice, resident):
    """Synapse reads it as an empty one."""
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room)
    event = resident.message(copy)
    for lists, answered in (
        ({"pdus": None, "edus": None}, {}),
        ({"pdus": None}, {}),
        ({"pdus": None, "edus": []}, {}),
        ({"pdus": [event], "edus": None}, {id_of(event): {}}),
    ):
        body = {"origin": resident.name, "origin_server_ts": now_ms(), **lists}
        assert resident.ask(server, "PUT", path("v1/send/{}", unique("txn")), body) == {"pdus": answered}, lists
    see(alice, room, id_of(event))
