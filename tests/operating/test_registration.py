"""Who may register, as the operator decides it."""

import hashlib
import hmac

import requests

from harness.client import Client
from harness.server import Server

SECRET = "only for the tools"


def flows(server, **query):
    path = f"{server.base_url}/_matrix/client/v3/register"
    return requests.post(path, params=query, json={"username": "u", "password": "correct horse"}, timeout=10)


def test_closed(tmp_path):
    with Server(tmp_path / "data", "--registration", "closed", "--guests", "off") as server:
        for answer in (flows(server), flows(server, kind="guest")):
            assert answer.status_code == 403, answer.text
            assert answer.json()["errcode"] in ("M_FORBIDDEN", "M_GUEST_ACCESS_FORBIDDEN")


def test_with_a_token(tmp_path):
    with Server(tmp_path / "data", "--registration", "token") as server:
        answer = flows(server)
        assert answer.status_code == 401
        assert answer.json()["flows"] == [{"stages": ["m.login.registration_token"]}]


def test_open_to_everybody_and_to_guests(tmp_path):
    with Server(tmp_path / "data", "--registration", "open", "--guests", "on") as server:
        assert {"stages": ["m.login.dummy"]} in flows(server).json()["flows"]
        guest = Client(server.base_url).post("register", query={"kind": "guest"})
        assert Client(server.base_url).signed_in(guest).get("account/whoami")["is_guest"] is True


def registration(server, name, password, secret=SECRET, admin=False):
    """As Synapse's `register_new_matrix_user` asks: an HMAC over what is asked for, by a nonce that is good once."""
    path = f"{server.base_url}/_synapse/admin/v1/register"
    nonce = requests.get(path, timeout=10).json()["nonce"]
    parts = [nonce, name, password, "admin" if admin else "notadmin"]
    mac = hmac.new(secret.encode(), b"\x00".join(part.encode() for part in parts), hashlib.sha1).hexdigest()
    return path, {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac}


def test_by_the_shared_secret(tmp_path):
    with Server(tmp_path / "data", "--registration", "closed", "--registration-shared-secret", SECRET) as server:
        path, body = registration(server, "made", "correct horse", admin=True)
        made = requests.post(path, json=body, timeout=10)
        assert made.status_code == 200, made.text
        user = Client(server.base_url).signed_in(made.json())
        assert user.user_id == f"@made:{server.name}"
        assert user.get("/_synapse/admin/v1/federation/destinations")["total"] == 0
        # The nonce is used up, another secret is refused, and a name is taken once.
        assert requests.post(path, json=body, timeout=10).status_code == 400
        path, body = registration(server, "other", "correct horse", secret="guessed")
        assert requests.post(path, json=body, timeout=10).status_code == 403
        path, body = registration(server, "made", "correct horse")
        taken = requests.post(path, json=body, timeout=10)
        assert (taken.status_code, taken.json()["errcode"]) == (400, "M_USER_IN_USE")


def test_tools_make_many_accounts_in_a_row_and_guessing_is_slowed_down(tmp_path):
    options = ("--registration", "closed", "--registration-shared-secret", SECRET, "--rate-limits", "on")
    with Server(tmp_path / "data", *options) as server:

        def status(name, secret):
            path, body = registration(server, name, "correct horse", secret)
            return requests.post(path, json=body, timeout=10).status_code

        assert [status(f"rabbit-{number}", SECRET) for number in range(40)] == [200] * 40
        guesses = [status("guesser", f"guess {number}") for number in range(40)]
        # Ten at once, and one every ten seconds.
        assert set(guesses) == {403, 429} and 10 <= guesses.count(403) < 20, guesses
        assert guesses[:10] == [403] * 10
        # Not even the right one is looked at meanwhile: the answer would tell.
        assert status("guesser", SECRET) == 429


def test_without_a_shared_secret_there_is_no_such_way(tmp_path):
    with Server(tmp_path / "data", "--registration", "closed") as server:
        answer = requests.get(f"{server.base_url}/_synapse/admin/v1/register", timeout=10)
        assert answer.status_code == 400 and "nonce" not in answer.json()
