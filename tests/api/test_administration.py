"""What administrators ask and decide, and what the operator publishes (spec: Server Administration, Account locking and
suspension, Server Discovery, Registration)."""

import pytest

from harness.client import Client
from harness.server import Server

ADMIN = "/_matrix/client/v1/admin/{what}/{userId}"
VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity"
SUPPORT = ["--support-email", "help@burrow.example", "--support-page", "https://burrow.example/help"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("administration") / "data", *SUPPORT)
    server.admin_password = server.make_administrator("warden")
    with server:
        yield server


@pytest.fixture(scope="module")
def warden(server):
    return Client(server.base_url, f"@warden:{server.name}").login(server.admin_password)


@pytest.fixture
def rabbit(server):
    return Client(server.base_url).register("rabbit")


def test_where_a_user_is_logged_in(warden, rabbit):
    for asker in (rabbit, warden):
        answer = asker.get("admin/whois/{userId}", rabbit.user_id)
        assert answer["user_id"] == rabbit.user_id
        assert list(answer["devices"]) == [rabbit.device_id]
    rabbit.get("admin/whois/{userId}", warden.user_id, status=403, errcode="M_FORBIDDEN")


def test_a_suspended_user_reads_but_does_not_speak(warden, rabbit):
    room = rabbit.create_room()
    assert warden.get(ADMIN, "suspend", rabbit.user_id) == {"suspended": False}
    warden.put(ADMIN, "suspend", rabbit.user_id, json={"suspended": True})
    assert warden.get(ADMIN, "suspend", rabbit.user_id) == {"suspended": True}
    rabbit.send(room, "hello", status=403, errcode="M_USER_SUSPENDED")
    assert rabbit.messages(room)["chunk"]
    warden.put(ADMIN, "suspend", rabbit.user_id, json={"suspended": False})
    rabbit.send(room, "hello")


def test_a_locked_user_only_logs_out(warden, rabbit):
    assert warden.get(ADMIN, "lock", rabbit.user_id) == {"locked": False}
    warden.put(ADMIN, "lock", rabbit.user_id, json={"locked": True})
    assert warden.get(ADMIN, "lock", rabbit.user_id) == {"locked": True}
    assert rabbit.get("sync", status=401, errcode="M_USER_LOCKED")["soft_logout"] is True
    warden.put(ADMIN, "lock", rabbit.user_id, json={"locked": False})
    rabbit.get("account/whoami")


@pytest.mark.parametrize("what, body", [("lock", {}), ("suspend", {"suspended": "yes"})])
def test_malformed_decisions(warden, rabbit, what, body):
    warden.put(ADMIN, what, rabbit.user_id, json=body, status=400)
    rabbit.put(ADMIN, what, rabbit.user_id, json={what + "ed": True}, status=403, errcode="M_FORBIDDEN")
    warden.get(ADMIN, what, f"@nobody:{rabbit.server_name}", status=404, errcode="M_NOT_FOUND")


def test_whom_to_ask_for_help(server, nobody):
    answer = Client(server.base_url).get("/.well-known/matrix/support")
    assert answer["contacts"][0]["email_address"] == "help@burrow.example"
    assert answer["support_page"] == "https://burrow.example/help"
    nobody.get("/.well-known/matrix/support", status=404, errcode="M_NOT_FOUND")


def test_whether_a_registration_token_is_good(tmp_path):
    with Server(tmp_path / "data", "--registration", "token") as server:
        client = Client(server.base_url)
        page = client.send_raw("GET", "/").text
        token = page.split("<code>")[1].split("</code>")[0]
        assert client.get(VALIDITY, query={"token": token}) == {"valid": True}
        assert client.get(VALIDITY, query={"token": token + "x"}) == {"valid": False}
        client.get(VALIDITY, status=400, errcode="M_MISSING_PARAM")
