"""Server-side key backup (spec: Server-side key backups)."""

import pytest

VERSION = "room_keys/version"
KEY = "room_keys/keys/{roomId}/{sessionId}"
ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
ROOM = "!burrow:example.org"


def create(client, public_key="abcdefg"):
    body = {"algorithm": ALGORITHM, "auth_data": {"public_key": public_key, "signatures": {}}}
    return client.post(VERSION, json=body)["version"]


def session(index=0, forwarded=0, verified=False, text="ct"):
    data = {"ephemeral": "base64+ephemeral+key", "ciphertext": text, "mac": "base64+mac"}
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": data,
    }


def test_versions(alice):
    alice.get(VERSION, status=404, errcode="M_NOT_FOUND")
    first, second = create(alice), create(alice, "second")
    assert first != second
    current = alice.get(VERSION)
    assert (current["version"], current["algorithm"], current["count"]) == (second, ALGORITHM, 0)
    assert current["auth_data"]["public_key"] == "second"
    assert alice.get(VERSION + "/{version}", first)["version"] == first


def test_update_of_a_version(alice):
    version = create(alice)
    body = {"algorithm": ALGORITHM, "auth_data": {"public_key": "new", "signatures": {}}, "version": version}
    assert alice.put(VERSION + "/{version}", version, json=body) == {}
    assert alice.get(VERSION)["auth_data"]["public_key"] == "new"
    alice.put(VERSION + "/{version}", version, json={**body, "algorithm": "m.other"}, status=400)
    alice.put(VERSION + "/{version}", "9999", json={**body, "version": "9999"}, status=404, errcode="M_NOT_FOUND")


def test_numbers_with_fractions_come_back(alice):
    """Nothing here is signed by the server, and nothing has to be canonical JSON."""
    auth_data = {"public_key": "abc", "signatures": {}, "iterations": 1.5, "large": 1e30}
    body = {"algorithm": ALGORITHM, "auth_data": auth_data}
    version = {"version": alice.post(VERSION, json=body)["version"]}
    assert alice.get(VERSION)["auth_data"] == auth_data
    body["auth_data"] = {**auth_data, "iterations": 0.25}
    alice.put(VERSION + "/{version}", version["version"], json=body)
    assert alice.get(VERSION)["auth_data"] == body["auth_data"]
    data = session()
    data["session_data"]["n"] = 2.75
    alice.put(KEY, ROOM, "s", query=version, json=data)
    assert alice.get(KEY, ROOM, "s", query=version)["session_data"]["n"] == 2.75


@pytest.mark.parametrize("auth_data", [None, 5, "x", []])
def test_auth_data_that_is_no_object(alice, auth_data):
    alice.post(VERSION, json={"algorithm": ALGORITHM, "auth_data": auth_data}, status=400)


def test_deletion_of_a_version(alice):
    version = create(alice)
    assert alice.delete(VERSION + "/{version}", version) == {}
    alice.get(VERSION, status=404, errcode="M_NOT_FOUND")
    alice.get(VERSION + "/{version}", version, status=404, errcode="M_NOT_FOUND")


def test_keys_at_three_levels(alice):
    version = {"version": create(alice)}
    one = alice.put(KEY, ROOM, "s1", query=version, json=session(text="one"))
    assert one["count"] == 1
    alice.put("room_keys/keys/{roomId}", ROOM, query=version, json={"sessions": {"s2": session(text="two")}})
    rooms = {"rooms": {"!other:example.org": {"sessions": {"s3": session(text="three")}}}}
    assert alice.put("room_keys/keys", query=version, json=rooms)["count"] == 3
    assert alice.get(KEY, ROOM, "s1", query=version)["session_data"]["ciphertext"] == "one"
    assert set(alice.get("room_keys/keys/{roomId}", ROOM, query=version)["sessions"]) == {"s1", "s2"}
    assert set(alice.get("room_keys/keys", query=version)["rooms"]) == {ROOM, "!other:example.org"}
    assert alice.get(VERSION)["count"] == 3
    assert alice.get(VERSION)["etag"] != one["etag"]
    assert alice.delete(KEY, ROOM, "s1", query=version)["count"] == 2
    assert alice.delete("room_keys/keys/{roomId}", ROOM, query=version)["count"] == 1
    assert alice.delete("room_keys/keys", query=version)["count"] == 0
    alice.get(KEY, ROOM, "s1", query=version, status=404, errcode="M_NOT_FOUND")
    assert alice.get("room_keys/keys", query=version) == {"rooms": {}}


@pytest.mark.ours("Synapse lets a lower index win over a verified key")
@pytest.mark.parametrize(
    "old, new, wins",
    [
        (session(index=5, text="old"), session(index=3, text="new"), "new"),
        (session(index=3, text="old"), session(index=5, text="new"), "old"),
        (session(forwarded=2, text="old"), session(forwarded=1, text="new"), "new"),
        (session(forwarded=1, text="old"), session(forwarded=2, text="new"), "old"),
        (session(index=1, text="old"), session(index=9, verified=True, text="new"), "new"),
        (session(index=9, verified=True, text="old"), session(index=1, text="new"), "old"),
        (session(text="old"), session(text="new"), "old"),
    ],
)
def test_the_better_key_wins(alice, old, new, wins):
    version = {"version": create(alice)}
    alice.put(KEY, ROOM, "s", query=version, json=old)
    alice.put(KEY, ROOM, "s", query=version, json=new)
    assert alice.get(KEY, ROOM, "s", query=version)["session_data"]["ciphertext"] == wins


@pytest.mark.ours("Synapse names the older version as the current one")
def test_an_older_version_takes_no_keys(alice):
    old = create(alice)
    current = create(alice)
    answer = alice.put(KEY, ROOM, "s", query={"version": old}, json=session(), status=403)
    assert answer["errcode"] == "M_WRONG_ROOM_KEYS_VERSION"
    assert answer["current_version"] == current


def test_an_unknown_version(alice):
    alice.put(KEY, ROOM, "s", query={"version": "9999"}, json=session(), status=404, errcode="M_NOT_FOUND")
    alice.get(KEY, ROOM, "s", query={"version": "9999"}, status=404, errcode="M_NOT_FOUND")


def test_backups_are_their_owners(alice, bob):
    version = {"version": create(alice)}
    alice.put(KEY, ROOM, "s", query=version, json=session())
    bob.get(KEY, ROOM, "s", query=version, status=404, errcode="M_NOT_FOUND")


@pytest.mark.ours("Synapse fails inside on values of another type")
def test_malformed_keys(alice):
    version = {"version": create(alice)}
    for body in ({}, {"first_message_index": "x"}, {**session(), "session_data": 7}):
        alice.put(KEY, ROOM, "s", query=version, json=body, status=400)
    alice.post(VERSION, json={"auth_data": {}}, status=400)
