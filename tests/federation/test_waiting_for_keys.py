"""How long a client waits for the keys of users of servers that do not answer (client-server API, "End-to-End Encryption")."""

import threading
import time

import pytest

from harness.client import Client
from harness.deliveries import room_with, until_failing
from harness.participant import SECONDS_MAX, Participant

# A client that says nothing waits for ten seconds.
LESS_THAN_TEN = 8


class Quiet(Participant):
    """Answers no question about its users until it may."""

    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        self.may_tell = threading.Event()

    def answer_user(self, _values, _query, _body):
        self.may_tell.wait(SECONDS_MAX)
        return 200, {"device_keys": {}, "one_time_keys": {}}


@pytest.fixture
def quiet(network):
    peer = network.peer(kind=Quiet)
    yield peer
    peer.may_tell.set()
    peer.close()


def seconds(action):
    begin = time.monotonic()
    return action(), time.monotonic() - begin


@pytest.mark.parametrize(
    "path, name, wanted",
    [("keys/query", "device_keys", []), ("keys/claim", "one_time_keys", {"D": "signed_curve25519"})],
)
def test_a_client_says_how_long_it_waits(alice, quiet, path, name, wanted):
    body = {name: {quiet.user(): wanted}}
    answer, took = seconds(lambda: alice.post(path, json={**body, "timeout": 500}))
    assert list(answer["failures"]) == [quiet.name] and answer[name] == {}
    assert 0.5 <= took < LESS_THAN_TEN
    alice.post(path, json={**body, "timeout": -1}, status=400, errcode="M_BAD_JSON")


def test_a_server_that_cannot_be_reached_holds_up_no_keys_and_is_asked_all_the_same(warren, admin, quiet):
    alice = Client(warren.base_url).register("alice")
    room_id, user_id = room_with(alice, warren, quiet)
    quiet.is_failing = True
    alice.send(room_id, "1")
    until_failing(admin, quiet)
    query = {"device_keys": {user_id: []}}
    answer, took = seconds(lambda: alice.post("keys/query", json=query))
    assert list(answer["failures"]) == [quiet.name] and took < LESS_THAN_TEN
    # It may be back before anything is sent to it again.
    quiet.may_tell.set()
    assert alice.post("keys/query", json=query)["failures"] == {}
