"""What who has just installed the server sees: the token that is printed, the page, and that both lead to an account."""

import re
import socket
import subprocess

import pytest
import requests

from harness import server as binary
from harness.client import Client
from harness.server import Server

TOKEN = re.compile(r"register with the token (\S+?),")


@pytest.fixture
def fresh(tmp_path):
    with Server(tmp_path / "data", "--registration", "token") as server:
        yield server


def the_token(server):
    return TOKEN.search(server.log_path.read_text()).group(1)


def page(server, **headers):
    answer = requests.get(server.base_url, headers=headers, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    return answer


def register(server, name, token):
    """Registers with a token, as clients do: the first answer names the stage. Returns the last answer."""
    body = {"username": name, "password": "correct horse"}
    path = f"{server.base_url}/_matrix/client/v3/register"
    wanted = requests.post(path, json=body, timeout=10).json()
    assert {"stages": ["m.login.registration_token"]} in wanted["flows"], wanted
    auth = {"type": "m.login.registration_token", "token": token, "session": wanted["session"]}
    return requests.post(path, json={**body, "auth": auth}, timeout=10)


def test_the_first_start_says_how_to_connect(fresh):
    log = fresh.log_path.read_text()
    assert the_token(fresh)
    assert f"open {fresh.base_url} in a browser" in log


def test_the_token_is_printed_however_little_is_logged(tmp_path):
    with Server(tmp_path / "data", "--registration", "token", "--log", "off") as server:
        assert the_token(server) in page(server).text
    assert "INFO" not in server.log_path.read_text()


def test_the_page_says_the_same(fresh):
    answer = page(fresh)
    assert the_token(fresh) in answer.text
    assert fresh.base_url in answer.text
    assert fresh.name in answer.text
    version = subprocess.run([binary.binary(), "--version"], capture_output=True, text=True, timeout=10).stdout.split()[1]
    assert version in answer.text
    health = requests.get(f"{fresh.base_url}/health", timeout=10).json()
    assert health["status"] == "ok" and health["server_name"] == fresh.name and health["version"] == version


def test_the_page_loads_and_runs_nothing(fresh):
    answer = page(fresh)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script|\bon\w+=|src=|@import|url\(", answer.text)


def test_the_token_is_good_for_one_account_which_administers(fresh):
    token = the_token(fresh)
    made = register(fresh, "first", token)
    assert made.status_code == 200, made.text
    first = Client(fresh.base_url).signed_in(made.json())
    assert first.get("/_synapse/admin/v1/federation/destinations")["total"] == 0
    again = register(fresh, "second", token)
    assert again.status_code == 401, again.text
    assert token not in page(fresh).text
    # Nor is there another when it is started again.
    fresh.restart()
    assert len(TOKEN.findall(fresh.log_path.read_text())) == 1
    assert token not in page(fresh).text


def further_token(server):
    done = server.command("user", "token", *server.options)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("token: ")[1].strip(), done.stdout


def test_further_tokens_are_made_by_command(fresh):
    """Each is good for one account, which does not administer the server."""
    assert register(fresh, "first", the_token(fresh)).status_code == 200
    assert fresh.stop() == 0
    (token, said), (other, _) = further_token(fresh), further_token(fresh)
    assert "one account" in said
    fresh.start()
    assert token not in page(fresh).text
    made = register(fresh, "second", token)
    assert made.status_code == 200, made.text
    second = Client(fresh.base_url).signed_in(made.json())
    second.get("/_synapse/admin/v1/federation/destinations", status=403, errcode="M_FORBIDDEN")
    assert register(fresh, "third", token).status_code == 401
    # The other one is good still, also after another restart.
    fresh.restart()
    assert register(fresh, "third", other).status_code == 200
    assert fresh.stop() == 0
    fresh.check()


def test_a_token_that_is_made_before_the_first_account_is_the_first(fresh):
    token = the_token(fresh)
    assert fresh.stop() == 0
    again, said = further_token(fresh)
    assert again == token and "administers" in said
    fresh.start()
    made = register(fresh, "first", again)
    first = Client(fresh.base_url).signed_in(made.json())
    assert first.get("/_synapse/admin/v1/federation/destinations")["total"] == 0


@pytest.mark.parametrize("registration", ["open", "closed"])
def test_no_token_is_made_that_nobody_would_ask_for(tmp_path, registration):
    with Server(tmp_path / "data", "--registration", registration) as server:
        assert server.stop() == 0
        done = server.command("user", "token", *server.options)
        assert done.returncode == 1 and "registration" in done.stderr and "token: " not in done.stdout


def test_a_token_that_was_not_used_stays(fresh):
    token = the_token(fresh)
    fresh.restart()
    assert set(TOKEN.findall(fresh.log_path.read_text())) == {token}
    assert register(fresh, "first", token).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Real-IP": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"Via": "1.1 proxy"},
        {"Origin": "https://evil.example"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8008"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "a{b.evil.example:8008"},
        {"Host": "127.0.0.1\xe9"},
    ],
    ids=str,
)
def test_the_token_is_shown_to_nobody_else(fresh, headers):
    """Who comes by way of a proxy on this machine, a page that a browser runs, a name that leads here."""
    assert the_token(fresh) not in page(fresh, **headers).text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_the_token_is_shown_under_every_name_of_this_machine(fresh, host):
    assert the_token(fresh) in page(fresh, Host=f"{host}:{fresh.port}").text


def test_the_token_is_not_shown_to_an_old_proxy(fresh):
    """nginx, unless it is told otherwise, names the address that it asks and nobody else, in HTTP/1.0."""
    for version, is_shown in [("1.0", False), ("1.1", True)]:
        request = f"GET / HTTP/{version}\r\nHost: 127.0.0.1:{fresh.port}\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", fresh.port), timeout=10) as connection:
            connection.sendall(request.encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.") and b" 200 " in answer[:16]
        assert (the_token(fresh).encode() in answer) is is_shown
