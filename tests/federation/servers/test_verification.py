"""Users verify users of the other server, with whom they may share no room."""

import pytest

from harness.peer import Key, signed


def cross_signing_key(user, usage):
    """A key, and what is published of it."""
    key = Key()
    key.id = f"ed25519:{key.public}"
    return key, {"user_id": user.user_id, "usage": [usage], "keys": {key.id: key.public}}


def master_of(reader, user):
    found = reader.post("keys/query", json={"device_keys": {user.user_id: []}})
    return found["master_keys"][user.user_id]


@pytest.mark.parametrize("shares_room", [True, False], ids=["in a room", "in no room"])
def test_a_user_of_the_other_server_is_verified(request, alice, bob, shares_room):
    if shares_room:
        request.getfixturevalue("room")
    of_alice, master = cross_signing_key(alice, "master")
    signing, of_signing = cross_signing_key(alice, "user_signing")
    own = {"master_key": master, "user_signing_key": signed(of_signing, alice.user_id, of_alice)}
    alice.post("keys/device_signing/upload", json=own)
    of_bob, published = cross_signing_key(bob, "master")
    bob.post("keys/device_signing/upload", json={"master_key": published})
    # At once, and once: clients do not try again.
    seen = {name: value for name, value in master_of(alice, bob).items() if name != "signatures"}
    body = {bob.user_id: {of_bob.public: signed(seen, alice.user_id, signing)}}
    assert alice.post("keys/signatures/upload", json=body)["failures"] == {}

    def has_verified(key):
        return signing.id in key.get("signatures", {}).get(alice.user_id, {})

    assert has_verified(master_of(alice, bob))
    assert not has_verified(master_of(bob, bob)), "whom Alice has verified is her business"
    if shares_room:
        # Nor is it lost when her server has his list of devices.
        other = bob.login()
        algorithms = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]
        keys = {f"{kind}:{other.device_id}": "A" * 43 for kind in ("curve25519", "ed25519")}
        device = {"user_id": bob.user_id, "device_id": other.device_id, "algorithms": algorithms, "keys": keys}
        device["signatures"] = {bob.user_id: {f"ed25519:{other.device_id}": "B" * 86}}
        other.post("keys/upload", json={"device_keys": device})
        alice.sync_until(lambda answer: bob.user_id in answer.get("device_lists", {}).get("changed", []))
        assert has_verified(master_of(alice, bob))
