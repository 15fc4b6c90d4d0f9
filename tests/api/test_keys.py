"""End-to-end encryption keys, cross-signing and device lists (spec: End-to-End Encryption).

The server checks no signature of a device key, so well-formed keys with made-up values do.
"""

import base64
import json
import os

import pytest

from harness.client import PASSWORD, joined


def key():
    return base64.b64encode(os.urandom(32)).decode().rstrip("=")


def signature():
    return base64.b64encode(os.urandom(64)).decode().rstrip("=")


def device_keys(client):
    device = client.device_id
    return {
        "user_id": client.user_id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"curve25519:{device}": key(), f"ed25519:{device}": key()},
        "signatures": {client.user_id: {f"ed25519:{device}": signature()}},
    }


def one_time_keys(client, count):
    signed = {client.user_id: {f"ed25519:{client.device_id}": signature()}}
    return {f"signed_curve25519:AAAA{number}": {"key": key(), "signatures": signed} for number in range(count)}


def upload(client, **body):
    return client.post("keys/upload", json=body)


def query(client, *users, **more):
    return client.post("keys/query", json={"device_keys": {user.user_id: [] for user in users}}, **more)


def claim(client, user, algorithm="signed_curve25519"):
    wanted = {user.user_id: {user.device_id: algorithm}}
    answer = client.post("keys/claim", json={"one_time_keys": wanted})
    return answer["one_time_keys"].get(user.user_id, {}).get(user.device_id, {})


@pytest.mark.parametrize("wanted", [None, [], {"@alice:x": []}, {"@alice:x": {"DEVICE": 7}}])
def test_malformed_claims(alice, wanted):
    alice.post("keys/claim", json={} if wanted is None else {"one_time_keys": wanted}, status=400)


def test_upload_and_query(alice, bob):
    keys = device_keys(alice)
    upload(alice, device_keys=keys)
    alice.put("devices/{deviceId}", alice.device_id, json={"display_name": "Den"})
    shown = query(bob, alice)["device_keys"][alice.user_id][alice.device_id]
    assert shown.pop("unsigned") == {"device_display_name": "Den"}
    assert shown == keys


@pytest.mark.ours("Synapse takes any number of them")
def test_too_many_keys_are_signed_by_nobody(alice):
    # As many as one request may sign.
    keys = {f"@made-up-{number}:{alice.server_name}": {"D": {}} for number in range(1_000)}
    assert alice.post("keys/signatures/upload", json=keys)["failures"].keys() == keys.keys()
    keys[alice.user_id] = {"D": {}}
    alice.post("keys/signatures/upload", json=keys, status=413, errcode="M_TOO_LARGE")


@pytest.mark.ours("Synapse keeps whatever is uploaded")
def test_a_device_has_no_more_signatures_than_there_are_keys_to_sign_it(alice, bob):
    """Nobody verifies them, and all who follow the user are sent them; so only a few are kept of the largest, and many of today's."""
    keys = device_keys(alice)

    def signed(count, length):
        more = {f"ed25519:{number}": "A" * length for number in range(count)}
        return {**keys, "signatures": {alice.user_id: keys["signatures"][alice.user_id] | more}}

    alice.post("keys/upload", json={"device_keys": signed(14, 8000)}, status=413, errcode="M_TOO_LARGE")
    assert query(bob, alice)["device_keys"].get(alice.user_id, {}) == {}
    for keys_signed in (signed(2, 8000), signed(100, 86)):
        upload(alice, device_keys=keys_signed)
        shown = query(bob, alice)["device_keys"][alice.user_id][alice.device_id]["signatures"]
        assert shown == keys_signed["signatures"]


def test_query_of_single_devices(alice, bob):
    upload(alice, device_keys=device_keys(alice))
    body = {"device_keys": {alice.user_id: [alice.device_id, "NOWHERE"]}}
    assert set(bob.post("keys/query", json=body)["device_keys"][alice.user_id]) == {alice.device_id}


def test_query_of_an_unknown_user(alice):
    body = {"device_keys": {f"@nobody-at-all:{alice.server_name}": []}}
    answer = alice.post("keys/query", json=body)
    assert answer["device_keys"].get(f"@nobody-at-all:{alice.server_name}", {}) == {}


def test_one_time_keys_are_given_once(alice, bob):
    keys = one_time_keys(alice, 3)
    assert upload(alice, one_time_keys=keys)["one_time_key_counts"]["signed_curve25519"] == 3
    seen = {}
    for _ in range(3):
        given = claim(bob, alice)
        assert len(given) == 1
        seen.update(given)
    assert seen == keys
    assert claim(bob, alice) == {}
    assert upload(alice)["one_time_key_counts"].get("signed_curve25519", 0) == 0


def test_the_same_one_time_key_again_is_no_new_key(alice):
    keys = one_time_keys(alice, 1)
    upload(alice, one_time_keys=keys)
    assert upload(alice, one_time_keys=keys)["one_time_key_counts"]["signed_curve25519"] == 1


def test_another_one_time_key_under_the_same_id_is_refused(alice):
    upload(alice, one_time_keys=one_time_keys(alice, 1))
    alice.post("keys/upload", json={"one_time_keys": one_time_keys(alice, 1)}, status=400)


def test_a_fallback_key_is_given_again_and_again(alice, bob):
    fallback = {"signed_curve25519:FALL": {**one_time_keys(alice, 1)["signed_curve25519:AAAA0"], "fallback": True}}
    upload(alice, fallback_keys=fallback)
    assert alice.sync()["device_unused_fallback_key_types"] == ["signed_curve25519"]
    assert claim(bob, alice) == claim(bob, alice) == fallback
    assert alice.sync()["device_unused_fallback_key_types"] == []


def test_sync_counts_one_time_keys(alice, bob):
    upload(alice, device_keys=device_keys(alice), one_time_keys=one_time_keys(alice, 5))
    assert alice.sync()["device_one_time_keys_count"]["signed_curve25519"] == 5
    claim(bob, alice)
    assert alice.sync()["device_one_time_keys_count"]["signed_curve25519"] == 4


def test_keys_of_another_device_are_refused(alice, bob):
    keys = {**device_keys(bob)}
    alice.post("keys/upload", json={"device_keys": keys}, status=400)


@pytest.mark.ours("Synapse fails inside on values of another type")
@pytest.mark.parametrize("body", [{"device_keys": 7}, {"one_time_keys": []}, {"one_time_keys": {"nocolon": "x"}}])
def test_malformed_uploads(alice, body):
    alice.post("keys/upload", json=body, status=400)


@pytest.mark.parametrize("body", [{}, {"device_keys": []}, {"device_keys": {"@a:b": "x"}}])
def test_malformed_queries(alice, body):
    alice.post("keys/query", json=body, status=400)


def test_a_new_device_is_news_to_those_who_share_a_room(alice, bob, room):
    alice.sync()
    bob.sync()
    upload(bob, device_keys=device_keys(bob))
    changed = alice.sync_until(lambda a: a.get("device_lists", {}).get("changed"))
    assert changed == [bob.user_id]


def test_device_lists_regard_rooms_that_are_filtered_out(alice, bob, carol, room):
    """A filter chooses what of rooms is shown; whose devices to follow depends on the rooms themselves."""
    hidden = {"filter": json.dumps({"room": {"not_rooms": [room]}})}
    bob.sync(**hidden)
    alice.invite(room, carol)
    carol.join(room)
    lists = bob.sync_until(lambda answer: answer.get("device_lists"), **hidden)
    assert carol.user_id in lists["changed"]
    carol.leave(room)
    lists = bob.sync_until(lambda answer: answer.get("device_lists"), **hidden)
    assert carol.user_id in lists["left"]
    carol.sync(**hidden)
    alice.invite(room, carol)
    carol.join(room)
    lists = carol.sync_until(lambda answer: answer.get("device_lists"), **hidden)
    assert {alice.user_id, bob.user_id} <= set(lists["changed"])


def test_changes_between_tokens(alice, bob, room):
    before = alice.sync()["next_batch"]
    upload(bob, device_keys=device_keys(bob))
    after = alice.sync_until(lambda a: a["next_batch"] if a.get("device_lists", {}).get("changed") else None)
    assert alice.get("keys/changes", query={"from": before, "to": after})["changed"] == [bob.user_id]


def test_strangers_are_not_told(alice, bob, carol, room):
    carol.sync()
    upload(bob, device_keys=device_keys(bob))
    assert not carol.sync().get("device_lists", {}).get("changed")


def test_the_last_shared_room_left(alice, bob, room):
    upload(bob, device_keys=device_keys(bob))
    alice.sync()
    bob.leave(room)
    left = alice.sync_until(lambda a: a.get("device_lists", {}).get("left"))
    assert left == [bob.user_id]


def test_who_is_invited_may_have_other_devices_by_now(alice, bob, room):
    """Clients encrypt for who is invited, too. What they know of them is of when they were there last."""
    upload(bob, device_keys=device_keys(bob))
    bob.leave(room)
    alice.sync()
    other = bob.login()
    upload(other, device_keys=device_keys(other))
    assert not alice.sync().get("device_lists", {}).get("changed")
    alice.invite(room, bob)
    lists = alice.sync_until(lambda answer: answer.get("device_lists"))
    assert (lists["changed"], lists.get("left", [])) == ([bob.user_id], [])
    # Nor does the invite's end take them away: whose devices are followed by then is as it was.
    bob.leave(room)
    seen = alice.sync_until(lambda answer: joined(answer, room) and answer)
    assert not seen.get("device_lists", {}).get("left")


# -- cross-signing ---------------------------------------------------------------------------------------------------


def canonical(value):
    bare = {name: part for name, part in value.items() if name not in ("signatures", "unsigned")}
    return json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class CrossSigning:
    """The three keys of a user, with true signatures."""

    def __init__(self, user):
        self.user = user
        self.pairs = {usage: SigningKey() for usage in ("master", "self_signing", "user_signing")}

    def public(self, usage):
        pair, master = self.pairs[usage], self.pairs["master"]
        value = {"user_id": self.user.user_id, "usage": [usage], "keys": {f"ed25519:{pair.public}": pair.public}}
        if usage != "master":
            signed = master.sign(canonical(value))
            value["signatures"] = {self.user.user_id: {f"ed25519:{master.public}": signed}}
        return value

    def upload_body(self):
        return {f"{usage}_key": self.public(usage) for usage in self.pairs}


class SigningKey:
    """An ed25519 pair."""

    def __init__(self):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.private = Ed25519PrivateKey.generate()
        self.public = base64.b64encode(self.private.public_key().public_bytes_raw()).decode().rstrip("=")

    def sign(self, data):
        return base64.b64encode(self.private.sign(data)).decode().rstrip("=")


@pytest.fixture
def signing(alice):
    signing = CrossSigning(alice)
    answer = alice.post("keys/device_signing/upload", json=signing.upload_body(), status=(200, 401))
    if "flows" in answer:
        alice.with_password("POST", "keys/device_signing/upload", json=signing.upload_body())
    return signing


@pytest.mark.ours("Synapse does not look")
def test_no_device_is_called_as_a_cross_signing_key(alice, signing):
    """Specification: "M_FORBIDDEN: [...] the requested device ID is the same as a cross-signing key ID"."""
    identifier = {"type": "m.id.user", "user": alice.user_id}
    body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    for pair in signing.pairs.values():
        alice.post("login", json={**body, "device_id": pair.public}, status=403, errcode="M_FORBIDDEN")
    assert [device["device_id"] for device in alice.get("devices")["devices"]] == [alice.device_id]


def test_cross_signing_keys_are_shown(alice, bob, signing):
    mine, theirs = query(alice, alice), query(bob, alice)
    for answer in (mine, theirs):
        assert answer["master_keys"][alice.user_id] == signing.public("master")
        assert answer["self_signing_keys"][alice.user_id] == signing.public("self_signing")
    assert mine["user_signing_keys"][alice.user_id] == signing.public("user_signing")
    assert alice.user_id not in theirs.get("user_signing_keys", {})


def test_replacing_the_keys_needs_the_password(alice, signing):
    alice.with_password("POST", "keys/device_signing/upload", json=CrossSigning(alice).upload_body())


def test_the_same_keys_again_need_no_password(alice, signing):
    assert alice.post("keys/device_signing/upload", json=signing.upload_body()) == {}


def test_new_cross_signing_keys_are_news(alice, bob, room):
    bob.sync()
    signing = CrossSigning(alice)
    answer = alice.post("keys/device_signing/upload", json=signing.upload_body(), status=(200, 401))
    if "flows" in answer:
        alice.with_password("POST", "keys/device_signing/upload", json=signing.upload_body())
    assert bob.sync_until(lambda a: a.get("device_lists", {}).get("changed")) == [alice.user_id]


def test_a_device_signed_by_its_user(alice, bob, room, signing):
    keys = device_keys(alice)
    upload(alice, device_keys=keys)
    bob.sync()
    pair = signing.pairs["self_signing"]
    signed = {**keys, "signatures": {alice.user_id: {f"ed25519:{pair.public}": pair.sign(canonical(keys))}}}
    body = {alice.user_id: {alice.device_id: signed}}
    assert alice.post("keys/signatures/upload", json=body).get("failures", {}) == {}
    shown = query(bob, alice)["device_keys"][alice.user_id][alice.device_id]["signatures"][alice.user_id]
    assert set(shown) == {f"ed25519:{pair.public}", f"ed25519:{alice.device_id}"}
    assert bob.sync_until(lambda a: a.get("device_lists", {}).get("changed")) == [alice.user_id]


def test_anothers_master_key_signed_is_seen_by_the_signer(alice, bob, room, signing):
    theirs = CrossSigning(bob)
    answer = bob.post("keys/device_signing/upload", json=theirs.upload_body(), status=(200, 401))
    if "flows" in answer:
        bob.with_password("POST", "keys/device_signing/upload", json=theirs.upload_body())
    master, pair = theirs.public("master"), signing.pairs["user_signing"]
    name = f"ed25519:{pair.public}"
    signed = {**master, "signatures": {alice.user_id: {name: pair.sign(canonical(master))}}}
    body = {bob.user_id: {theirs.pairs["master"].public: signed}}
    assert alice.post("keys/signatures/upload", json=body).get("failures", {}) == {}
    assert name in query(alice, bob)["master_keys"][bob.user_id]["signatures"][alice.user_id]
    assert alice.user_id not in query(bob, bob)["master_keys"][bob.user_id].get("signatures", {})


def test_a_wrong_signature_is_a_failure(alice, signing):
    keys = device_keys(alice)
    upload(alice, device_keys=keys)
    pair = signing.pairs["self_signing"]
    signed = {**keys, "signatures": {alice.user_id: {f"ed25519:{pair.public}": signature()}}}
    answer = alice.post("keys/signatures/upload", json={alice.user_id: {alice.device_id: signed}})
    assert answer["failures"][alice.user_id][alice.device_id]["errcode"] == "M_INVALID_SIGNATURE"
