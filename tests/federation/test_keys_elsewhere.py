"""Keys of users of other servers, which a client asks for and claims: a question may be asked twice, but each key is given out once."""

import threading

import pytest

from harness.client import unique
from harness.deliveries import room_with, until_failing
from harness.participant import Participant, path
from harness.waiting import until

QUERY, CLAIM = path("v1/user/keys/query"), path("v1/user/keys/claim")
# More than a server that failed the last time has to be found and connected to.
SLOW_SECONDS = 5
KEY = {"key": "k", "signatures": {}}


@pytest.fixture
def closing(network, warren, alice):
    """Closes each connection when it is used a second time. That it is in a room has it kept until then."""
    peer = network.peer(kind=Participant)
    room_with(alice, warren, peer)
    peer.answers[QUERY] = lambda _: (200, {"device_keys": {}})
    peer.answers[CLAIM] = lambda _: (200, {"one_time_keys": {}})
    peer.closes_reused = True
    return peer


def test_a_question_that_goes_lost_is_asked_again(alice, closing):
    def is_lost():
        found = alice.post("keys/query", json={"device_keys": {f"@{unique('bee')}:{closing.name}": []}})
        assert closing.name not in found["failures"]
        return QUERY in closing.lost

    until(is_lost)


def test_no_key_is_claimed_twice(alice, closing):
    wanted = {f"@bee:{closing.name}": {"BEE": "signed_curve25519"}}

    def lost():
        before = len(closing.asked(CLAIM))
        failures = alice.post("keys/claim", json={"one_time_keys": wanted})["failures"]
        return (failures, len(closing.asked(CLAIM)) - before) if CLAIM in closing.lost else None

    failures, count = until(lost)
    assert closing.name in failures and count == 0


def test_a_key_that_comes_late_of_a_server_that_had_failed_is_not_lost(warren, alice, admin, resident):
    room_id, user = room_with(alice, warren, resident)
    resident.is_failing = True
    alice.send(room_id, "1")
    until_failing(admin, resident)

    def claimed(_request):
        threading.Event().wait(SLOW_SECONDS)
        return 200, {"one_time_keys": {user: {"BEE": {"signed_curve25519:1": KEY}}}}

    resident.answers[CLAIM] = claimed
    found = alice.post("keys/claim", json={"one_time_keys": {user: {"BEE": "signed_curve25519"}}})
    assert found["failures"] == {}
    assert found["one_time_keys"] == {user: {"BEE": {"signed_curve25519:1": KEY}}}
