"""Guessing: users cannot be told apart from strangers, and who tries passwords is slowed down, wherever they come from.

The class of fault: enumeration by text or time, brute force, an address that the client itself may choose.
"""

import concurrent.futures
import statistics
import time

import pytest

from harness.client import PASSWORD, Client
from harness.server import Server

TRIES = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = ("--rate-limits", "on", "--password-hash-cost", "6")
    with Server(tmp_path_factory.mktemp("guessing") / "data", *options) as server:
        yield server


@pytest.fixture(scope="module")
def victim(server):
    return Client(server.base_url).register("victim")


def attempt(client, user, password="wrong", **more):
    identifier = {"type": "m.id.user", "user": user}
    body = {"type": "m.login.password", "identifier": identifier, "password": password}
    return client.send_raw("POST", "/_matrix/client/v3/login", json=body, **more)


def test_passwords_cannot_be_tried_without_end(server, victim):
    client = Client(server.base_url)
    answers = []
    for number in range(TRIES):
        # An address that the client claims is worth nothing: nobody said that it is a proxy.
        headers = {"X-Forwarded-For": f"203.0.113.{number % 250}"}
        answers.append(attempt(client, victim.user_id, f"guess {number}", headers=headers))
        if answers[-1].status_code == 429:
            break
    last = answers[-1]
    assert last.status_code == 429, f"{TRIES} tries were let through"
    assert last.json()["errcode"] == "M_LIMIT_EXCEEDED"
    assert last.json().get("retry_after_ms", 0) > 0 and int(last.headers["Retry-After"]) > 0
    # Not even the right password is looked at meanwhile: the answer would tell.
    assert attempt(client, victim.user_id, "correct horse battery staple").status_code == 429


def until_refused(client, user, address):
    """Tries wrong passwords until it is too often, of the user and from the address that the functions name for each try.
    Returns how many were looked at."""
    for number in range(TRIES):
        headers = {"X-Forwarded-For": address(number)}
        status = attempt(client, user(number), f"guess {number}", headers=headers).status_code
        if status == 429:
            return number
        assert status == 403, status
    raise AssertionError(f"{TRIES} tries were let through")


def behind_a_proxy(folder, trusted):
    return Server(folder / "data", "--rate-limits", "on", "--trusted-proxies", trusted)


@pytest.mark.parametrize("trusted, is_believed", [("127.0.0.1", True), ("10.0.0.0/8", False)])
def test_an_address_is_what_a_trusted_proxy_says_and_nobody_else(tmp_path, trusted, is_believed):
    """Of each account there is one try, so that only the address is counted."""
    name = "@stranger-{}:burrow.example".format
    with behind_a_proxy(tmp_path, trusted) as server:
        client = Client(server.base_url)
        assert until_refused(client, name, lambda number: "203.0.113.7") >= 10
        answer = attempt(client, name("last"), headers={"X-Forwarded-For": "203.0.113.8"})
        assert answer.status_code == (403 if is_believed else 429)
        # Before the address that the proxy has seen stands what that one claims.
        forged = attempt(client, name("forger"), headers={"X-Forwarded-For": "203.0.113.9, 203.0.113.7"})
        assert forged.status_code == 429


def test_an_account_is_guarded_against_guesses_from_everywhere(tmp_path):
    """From each address comes one try, so that only the account is counted."""
    with behind_a_proxy(tmp_path, "127.0.0.1") as server:
        victim = Client(server.base_url).register("victim")
        client = Client(server.base_url)
        looked_at = until_refused(client, lambda number: victim.user_id, "203.0.113.{}".format)
        # Ten at once, and one every five seconds.
        assert 10 <= looked_at < 20
        # Nor is the right password looked at meanwhile, from wherever it comes; who is logged in goes on.
        fresh = {"headers": {"X-Forwarded-For": "198.51.100.1"}}
        assert attempt(client, victim.user_id, PASSWORD, **fresh).status_code == 429
        assert victim.get("account/whoami")["user_id"] == victim.user_id
        # That address is not to blame.
        assert attempt(client, f"@other:{victim.server_name}", **fresh).status_code == 403


def refresh(client, token):
    return client.send_raw("POST", "/_matrix/client/v3/refresh", json={"refresh_token": token})


def test_who_refreshes_is_not_slowed_by_those_behind_the_same_address(tmp_path):
    """Neither by wrong passwords nor by a client that goes on with a token that is gone."""
    with Server(tmp_path / "data", "--rate-limits", "on") as server:
        client = Client(server.base_url)
        body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}, "refresh_token": True}
        alice = client.post("register", json=body)
        until_refused(client, lambda number: f"@stranger-{number}:{server.name}", lambda number: "203.0.113.7")
        second = refresh(client, alice["refresh_token"])
        assert second.status_code == 200, second.text
        # The next access token proves that the device has got the pair: the one before is gone with it.
        Client(server.base_url, alice["user_id"], second.json()["access_token"]).get("account/whoami")
        statuses = []
        while 429 not in statuses:
            statuses.append(refresh(client, alice["refresh_token"]).status_code)
            assert len(statuses) < TRIES, "guesses were let through without end"
        assert set(statuses) == {401, 429}
        assert refresh(client, second.json()["refresh_token"]).status_code == 200


def test_who_is_logged_in_is_not_slowed_by_it(server, victim):
    assert victim.get("account/whoami")["user_id"] == victim.user_id


@pytest.fixture
def unlimited(tmp_path):
    with Server(tmp_path / "data", "--password-hash-cost", "6") as server:
        yield Client(server.base_url)


def timed(client, user):
    """How long a wrong password takes, and what it is answered with."""
    start = time.perf_counter()
    answer = attempt(client, user)
    return time.perf_counter() - start, answer.status_code, answer.json()


def refusals(client, name):
    """What a known user and strangers are answered with, in turn, and the times that it takes."""
    known, unknown = [], []
    for number in range(15):
        known.append(timed(client, name))
        unknown.append(timed(client, f"@nobody-{number}:{name.split(':', 1)[1]}"))
    assert {repr(answer[1:]) for answer in known} == {repr(answer[1:]) for answer in unknown}
    return [[answer[0] for answer in answers] for answers in (known, unknown)]


def assert_alike(times):
    """Hashing is most of it; without it an answer takes a fiftieth. In turn they meet the same load of the machine."""
    known, unknown = map(statistics.median, times)
    assert known / 1.8 < unknown < known * 1.8, f"known {known:.4f} s, unknown {unknown:.4f} s"


def test_strangers_and_users_are_refused_alike(unlimited):
    assert_alike(refusals(unlimited, unlimited.register("someone").user_id))


def at_cost(folder, cost, port=None):
    return Server(folder / "data", "--password-hash-cost", str(cost), port=port)


@pytest.mark.parametrize("before, after", [(8, 2), (2, 8)])
def test_nor_can_they_be_told_apart_after_a_change_of_the_cost(tmp_path, before, after):
    """The account's own hash costs 64 times as much as one of today, or the other way round."""
    with at_cost(tmp_path, before) as server:
        user = Client(server.base_url).register("someone")
    with at_cost(tmp_path, after, server.port) as server:
        assert_alike(refusals(Client(server.base_url), user.user_id))


def test_a_password_is_hashed_anew_when_the_cost_has_changed(tmp_path):
    with at_cost(tmp_path, 8) as server:
        user = Client(server.base_url).register("someone")
    with at_cost(tmp_path, 2, server.port) as server:
        # The least that it takes is the work itself, whatever else the machine does.
        dear = [min(times) for times in refusals(Client(server.base_url), user.user_id)]
        # All at once, so that most find that another has been quicker; nobody is logged out by it.
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: attempt(Client(server.base_url), user.user_id, PASSWORD), range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        user.http.close()
        assert user.get("account/whoami")["device_id"] == user.device_id
        assert len(user.get("devices")["devices"]) == 9
    with at_cost(tmp_path, 2, server.port) as server:
        # No hash of the old cost is left.
        cheap = [min(times) for times in refusals(Client(server.base_url), user.user_id)]
        assert max(cheap) < min(dear) / 3, f"before {dear}, after {cheap}"
        assert attempt(Client(server.base_url), user.user_id, PASSWORD).status_code == 200


def test_a_request_that_wants_the_password_makes_its_hash_anew_too(tmp_path):
    with at_cost(tmp_path, 2) as server:
        user = Client(server.base_url).register("someone")
    with at_cost(tmp_path, 1, server.port) as server:
        user.http.close()
        user.with_password("POST", "account/password", json={"new_password": "another burrow"})
        user.login(password="another burrow")


def test_tokens_of_all_kinds_are_long(unlimited):
    user = unlimited.register("someone", refresh_token=True)
    assert len(user.token) >= 32
