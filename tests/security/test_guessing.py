"""Guessing: users cannot be told apart from strangers, and who tries passwords is slowed down, wherever they come from.

The class of fault: enumeration by text or time, brute force, an address that the client itself may choose.
"""

import statistics
import time

import pytest

from harness.client import Client
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


def test_who_is_logged_in_is_not_slowed_by_it(server, victim):
    assert victim.get("account/whoami")["user_id"] == victim.user_id


@pytest.fixture
def unlimited(tmp_path):
    with Server(tmp_path / "data", "--password-hash-cost", "6") as server:
        yield Client(server.base_url)


def test_strangers_and_users_are_refused_alike(unlimited):
    user = unlimited.register("someone")
    name = user.user_id

    def timed(user):
        start = time.perf_counter()
        answer = attempt(unlimited, user)
        return time.perf_counter() - start, answer.status_code, answer.json()

    known = [timed(name) for _ in range(9)]
    unknown = [timed(f"@nobody-{number}:{user.server_name}") for number in range(9)]
    assert {repr(answer[1:]) for answer in known} == {repr(answer[1:]) for answer in unknown}
    took = [statistics.median(answer[0] for answer in answers) for answers in (known, unknown)]
    # Hashing is most of it; without it an answer takes a fiftieth.
    assert took[1] > took[0] / 3, f"known {took[0]:.4f} s, unknown {took[1]:.4f} s"


def test_tokens_of_all_kinds_are_long(unlimited):
    user = unlimited.register("someone", refresh_token=True)
    assert len(user.token) >= 32
