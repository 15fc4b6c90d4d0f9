"""How long a client waits for the keys of users of servers that do not answer (client-server API, "End-to-End Encryption")."""

import time

import pytest

from harness.deliveries import room_with, until_failing
from harness.withholding import Withholding

# A client that says nothing waits for ten seconds.
LESS_THAN_TEN = 8


class Quiet(Withholding):
    """Answers no question about its users until it may."""

    def answer_user(self, _values, _query, _body):
        self.until_it_may()
        return 200, {"device_keys": {}, "one_time_keys": {}}


@pytest.fixture
def quiet(until_over):
    return until_over(Quiet)


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


def test_a_server_that_cannot_be_reached_holds_up_no_keys_and_is_asked_all_the_same(warren, admin, alice, quiet):
    room_id, user_id = room_with(alice, warren, quiet)
    quiet.is_failing = True
    alice.send(room_id, "1")
    until_failing(admin, quiet)
    query = {"device_keys": {user_id: []}}
    answer, took = seconds(lambda: alice.post("keys/query", json=query))
    assert list(answer["failures"]) == [quiet.name] and took < LESS_THAN_TEN
    # It may be back before anything is sent to it again.
    quiet.may_answer.set()
    assert alice.post("keys/query", json=query)["failures"] == {}
