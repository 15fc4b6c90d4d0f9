"""The page on which people complete a stage that their client does not know (spec: User-Interactive Authentication API,
Fallback)."""

import re
import urllib.parse

import pytest

from harness.client import PASSWORD, Client, unique
from harness.server import Server

PAGE = "/_matrix/client/v3/auth/{}/fallback/web?session={}"

pytestmark = pytest.mark.ours("Synapse has no page for these stages, and posts a form")


def address(stage, session):
    return PAGE.format(stage, urllib.parse.quote(session))


def page(client, stage, session):
    response = client.send_raw("GET", address(stage, session))
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/html")
    # What clients wait for, in the words of the specification.
    for line in ("if (window.onAuthDone) {", "window.onAuthDone();", 'window.opener.postMessage("authDone", "*");'):
        assert line in response.text
    return response


def complete(client, stage, session, status=200, **given):
    response = client.send_raw("POST", address(stage, session), json=given)
    assert response.status_code == status, response.text
    return response.json()


def test_a_registration_goes_on_where_the_page_has_been(nobody):
    name = unique("paged")
    session = nobody.post("register", json={"username": name, "password": PASSWORD}, status=401)["session"]
    only = {"auth": {"session": session}}
    assert "completed" not in nobody.post("register", json=only, status=401)
    page(nobody, "m.login.dummy", session)
    complete(nobody, "m.login.dummy", session)
    assert nobody.post("register", json=only)["user_id"].startswith(f"@{name}:")
    # What has served its request waits for nothing.
    assert nobody.send_raw("GET", address("m.login.dummy", session)).status_code == 400


def test_a_token_is_given_on_the_page(tmp_path):
    with Server(tmp_path / "data", "--registration", "token") as server:
        token = re.search(r"register with the token (\S+?),", server.log_path.read_text()).group(1)
        nobody = Client(server.base_url)
        body = {"username": "paged", "password": PASSWORD}
        session = nobody.post("register", json=body, status=401)["session"]
        assert 'name="token"' in page(nobody, "m.login.registration_token", session).text
        complete(nobody, "m.login.registration_token", session, status=400)
        refused = complete(nobody, "m.login.registration_token", session, status=401, token="burrow")
        assert refused["errcode"] == "M_UNAUTHORIZED"
        only = {"auth": {"session": session}}
        assert "completed" not in nobody.post("register", json=only, status=401)
        complete(nobody, "m.login.registration_token", session, token=token)
        assert nobody.post("register", json=only)["user_id"] == f"@paged:{server.name}"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_is_asked_for_a_password_on_the_page(alice, method):
    """Whoever has come by an access token could begin a session, and send its user there to complete it."""
    session = alice.post("delete_devices", json={"devices": [alice.device_id]}, status=401)["session"]
    response = alice.send_raw(method, address("m.login.password", session), json={"password": PASSWORD})
    assert (response.status_code, response.json()["errcode"]) == (404, "M_UNRECOGNIZED")
    alice.post("delete_devices", json={"auth": {"session": session}}, status=401)


def test_the_page_loads_nothing(nobody):
    session = nobody.post("register", json={}, status=401)["session"]
    policy = page(nobody, "m.login.dummy", session).headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_no_session_waits_for(nobody, method):
    session = nobody.post("register", json={}, status=401)["session"]
    for stage, asked, wanted in [
        ("m.login.password", session, (404, "M_UNRECOGNIZED")),
        ("m.login.burrow", session, (404, "M_UNRECOGNIZED")),
        ("m.login.dummy", "burrow", (400, "M_UNKNOWN")),
    ]:
        response = nobody.send_raw(method, address(stage, asked))
        assert (response.status_code, response.json()["errcode"]) == wanted
    response = nobody.send_raw(method, address("m.login.dummy", session).split("?")[0])
    assert (response.status_code, response.json()["errcode"]) == (400, "M_MISSING_PARAM")
