"""Users verify users of other servers: their signatures are kept, whatever this server has of the others (client-server API,
"Cross-signing")."""

import threading

import pytest

from harness.participant import SECONDS_MAX, path
from harness.peer import Key, signed
from harness.waiting import until

QUERY = path("v1/user/keys/query")
UPDATE = "m.device_list_update"
# Sooner than the next time at which lists are looked for that nobody told of, if that was just done.
SOON = 9


def cross_signing_key(user_id, usage):
    """A key, and what is published of it."""
    key = Key()
    key.id = f"ed25519:{key.public}"
    return key, {"user_id": user_id, "usage": [usage], "keys": {key.id: key.public}}


@pytest.fixture
def signing(alice):
    """The key with which Alice signs who she has verified."""
    master, published = cross_signing_key(alice.user_id, "master")
    key, of_key = cross_signing_key(alice.user_id, "user_signing")
    body = {"master_key": published, "user_signing_key": signed(of_key, alice.user_id, master)}
    alice.post("keys/device_signing/upload", json=body)
    return key


@pytest.fixture
def bob(resident):
    return resident.user()


@pytest.fixture
def master(resident, bob):
    """Bob's master key, as his server tells it."""
    _, master = cross_signing_key(bob, "master")
    resident.answers[QUERY] = lambda _: (200, {"device_keys": {bob: {}}, "master_keys": {bob: master}})
    return master


def shown(client, user_id):
    """A user's master key as a client is shown it."""
    return client.post("keys/query", json={"device_keys": {user_id: []}})["master_keys"][user_id]


def verify(alice, signing, user_id, master):
    """Alice signs a user's master key. Answers with what is refused."""
    (public,) = master["keys"].values()
    bare = {name: value for name, value in master.items() if name != "signatures"}
    body = {user_id: {public: signed(bare, alice.user_id, signing)}}
    return alice.post("keys/signatures/upload", json=body)["failures"]


def has_verified(key, alice, signing):
    return signing.id in key.get("signatures", {}).get(alice.user_id, {})


@pytest.mark.parametrize("shares_room", [False, True])
def test_whose_devices_are_not_known_can_be_verified(server, alice, carol, resident, bob, master, signing, shares_room):
    if shares_room:
        # His server tells his keys, but no list of his devices, so that it is left alone for a while.
        resident.join(server, alice.create_room(preset="public_chat"))
        shown(alice, bob)
        until(lambda: resident.asked(path("v1/user/devices/{}", bob)))
    assert verify(alice, signing, bob, shown(alice, bob)) == {}
    assert has_verified(shown(alice, bob), alice, signing)
    assert not has_verified(shown(carol, bob), alice, signing), "it is nobody else's business"
    # What his server does not tell is not his.
    _, other = cross_signing_key(bob, "master")
    (failure,) = verify(alice, signing, bob, other)[bob].values()
    assert failure["errcode"] == "M_NOT_FOUND"
    assert has_verified(shown(alice, bob), alice, signing)


def test_what_a_server_does_not_tell_is_not_there_and_others_are_asked_all_the_same(alice, resident, bob, master, signing):
    nobody = "@nobody:unheard.test"
    _, unheard = cross_signing_key(nobody, "master")
    (public,), (public_of_bob,) = unheard["keys"].values(), master["keys"].values()
    keys = {
        nobody: {public: signed(unheard, alice.user_id, signing)},
        bob: {public_of_bob: signed(master, alice.user_id, signing)},
    }
    failures = alice.post("keys/signatures/upload", json=keys)["failures"]
    assert failures.keys() == {nobody} and failures[nobody][public]["errcode"] == "M_NOT_FOUND"
    # Nobody is asked because of a signature that would not hold.
    asked = len(resident.asked(QUERY))
    stranger, _ = cross_signing_key(alice.user_id, "user_signing")
    _, new = cross_signing_key(bob, "master")
    assert verify(alice, stranger, bob, new)[bob]
    assert len(resident.asked(QUERY)) == asked


def test_a_gap_hides_no_signature_and_the_list_is_asked_for_at_once(server, alice, resident, bob, master, signing):
    may_tell = threading.Event()
    may_tell.set()
    devices = path("v1/user/devices/{}", bob)
    listed = {"user_id": bob, "stream_id": 5, "devices": [], "master_key": master}

    told = []

    def tell(_):
        may_tell.wait(SECONDS_MAX)
        told.append(listed)
        return 200, listed

    resident.answers[devices] = tell
    resident.join(server, alice.create_room(preset="public_chat"))
    alice.sync()
    assert verify(alice, signing, bob, shown(alice, bob)) == {}
    until(lambda: resident.asked(devices), SOON)
    for number in (1, 2):
        # Who was asked before has told: else that one would be held back, and with it the next.
        until(lambda: len(told) == len(resident.asked(devices)))
        asked, queried = len(resident.asked(devices)), len(resident.asked(QUERY))
        may_tell.clear()
        gap = {"user_id": bob, "device_id": "B", "stream_id": 100 * number, "prev_id": [100 * number - 1]}
        resident.transact(server, edus=[{"edu_type": UPDATE, "content": gap}])
        alice.sync_until(lambda answer: bob in answer.get("device_lists", {}).get("changed", []))
        assert has_verified(shown(alice, bob), alice, signing)
        assert len(resident.asked(QUERY)) > queried, "his server was asked"
        until(lambda: len(resident.asked(devices)) > asked, SOON)
        may_tell.set()
