"""What users ask of other servers: profiles, directories, keys, media, and what is asked of ours."""

import requests

from harness.federated import Synapse
from harness.pictures import png, size_of
from harness.rooms import via


def pairs(here, there, alice, bob):
    """Who asks whom, both ways."""
    return [(alice, bob, there), (bob, alice, here)]


def test_profiles(here, there, alice, bob):
    for asker, asked, _ in pairs(here, there, alice, bob):
        asked.put("profile/{userId}/displayname", asked.user_id, json={"displayname": "Bee"})
        assert asker.get("profile/{userId}", asked.user_id)["displayname"] == "Bee"
        assert asker.get("profile/{userId}/displayname", asked.user_id) == {"displayname": "Bee"}


def test_a_profile_that_is_not_there(there, alice):
    alice.get("profile/{userId}", f"@nobody:{there.name}", status=404)


def test_a_server_that_is_not_there(alice):
    alice.get("profile/{userId}", "@nobody:localhost:1", status=502)


def test_directories_of_rooms(here, there, alice, bob):
    for asker, asked, server in pairs(here, there, alice, bob):
        name = f"Open to all of {asked.user_id}"
        room = asked.create_room(preset="public_chat", visibility="public", name=name)
        found = asker.get("publicRooms", query={"server": server.name})["chunk"]
        assert room in [entry["room_id"] for entry in found]
        query = {"filter": {"generic_search_term": name}, "limit": 5}
        found = asker.post("publicRooms", json=query, query={"server": server.name})["chunk"]
        assert [(entry["room_id"], entry["name"]) for entry in found] == [(room, name)]


def keys_of(client):
    """A device's keys in the right form; nobody in this test verifies them."""
    algorithms = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]
    key = "A" * 43
    keys = {f"curve25519:{client.device_id}": key, f"ed25519:{client.device_id}": key}
    signatures = {client.user_id: {f"ed25519:{client.device_id}": "B" * 86}}
    device = {"user_id": client.user_id, "device_id": client.device_id, "algorithms": algorithms, "keys": keys}
    one_time = {"key": key, "signatures": signatures}
    return {"device_keys": {**device, "signatures": signatures}, "one_time_keys": {"signed_curve25519:AAAAAQ": one_time}}


def test_keys_of_devices(here, there, alice, bob):
    # Synapse tells the keys of those alone with whom it shares a room.
    room = alice.create_room(preset="public_chat")
    bob.join(room, query=via(here))
    for asker, asked, _ in pairs(here, there, alice, bob):
        uploaded = keys_of(asked)
        asked.post("keys/upload", json=uploaded)
        found = asker.post("keys/query", json={"device_keys": {asked.user_id: []}})
        device = found["device_keys"][asked.user_id][asked.device_id]
        assert device["keys"] == uploaded["device_keys"]["keys"]
        wanted = {asked.user_id: {asked.device_id: "signed_curve25519"}}
        claimed = asker.post("keys/claim", json={"one_time_keys": wanted})
        assert claimed["one_time_keys"][asked.user_id][asked.device_id] == uploaded["one_time_keys"]
        again = asker.post("keys/claim", json={"one_time_keys": wanted})
        assert not again["one_time_keys"].get(asked.user_id, {}).get(asked.device_id)


def test_keys_at_a_server_that_is_not_there(alice):
    found = alice.post("keys/query", json={"device_keys": {"@nobody:localhost:1": []}})
    assert list(found["failures"]) == ["localhost:1"]


def upload(client, content, kind, name):
    path = "/_matrix/media/v3/upload"
    headers = {"Content-Type": kind}
    answer = client.send_raw("POST", path, data=content, headers=headers, params={"filename": name})
    assert answer.status_code == 200, answer.text
    return answer.json()["content_uri"].removeprefix("mxc://")


def test_files(here, there, alice, bob):
    for asker, asked, _ in pairs(here, there, alice, bob):
        content = b"What the hare said. " * 20_000
        media = upload(asked, content, "text/plain", "hare.txt")
        for _ in range(2):
            answer = asker.send_raw("GET", f"/_matrix/client/v1/media/download/{media}")
            assert answer.status_code == 200, answer.text
            assert answer.content == content
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert "hare.txt" in answer.headers["Content-Disposition"]


def test_an_empty_file(alice, bob):
    media = upload(bob, b"", "text/plain", "nothing.txt")
    answer = alice.send_raw("GET", f"/_matrix/client/v1/media/download/{media}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_thumbnails(here, there, alice, bob):
    for asker, asked, _ in pairs(here, there, alice, bob):
        media = upload(asked, png(200), "image/png", "blue.png")
        path = f"/_matrix/client/v1/media/thumbnail/{media}"
        answer = asker.send_raw("GET", path, params={"width": 32, "height": 32, "method": "scale"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] in ("image/jpeg", "image/png")
        # Synapse makes a few sizes only, of which the next larger one is given.
        assert max(size_of(answer.content)) <= (200 if isinstance(there, Synapse) else 32)


def test_strangers_cannot_make_us_fetch_files(here, there, bob):
    media = upload(bob, b"hidden", "text/plain", "a.txt")
    answer = requests.get(f"{here.base_url}/_matrix/media/v3/download/{media}", timeout=30)
    assert answer.status_code == 404


def test_who_a_user_is(here, authority, alice):
    token = alice.post("user/{userId}/openid/request_token", alice.user_id)["access_token"]
    path = f"https://localhost:{here.federation_port}/_matrix/federation/v1/openid/userinfo"

    def get(token):
        return requests.get(path, params={"access_token": token}, verify=str(authority.path), timeout=30)

    assert get(token).json() == {"sub": alice.user_id}
    assert get("wrong").status_code == 401
