"""Every endpoint × every kind of credential: what each row of the endpoint table promises is what happens.

The class of fault: an endpoint that forgets to ask who is there, or lets in a token that has ended.
"""

import re

import pytest

from harness.client import PASSWORD, Client
from harness.server import Server

# Long polls and endpoints that would end the session under test are refused like all others, so none is left out.
UNKNOWN = (401, "M_UNKNOWN_TOKEN")
MISSING = (401, "M_MISSING_TOKEN")
LOCKED = (401, "M_USER_LOCKED")
GUEST = (403, "M_GUEST_ACCESS_FORBIDDEN")
FORBIDDEN = (403, "M_FORBIDDEN")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("credentials") / "data")
    server.admin_password = server.make_administrator("warden")
    with server:
        yield server


@pytest.fixture(scope="module")
def clients(server):
    """A client for each kind of credential."""
    nobody = Client(server.base_url)
    admin = {"type": "m.id.user", "user": "warden"}
    body = {"type": "m.login.password", "identifier": admin, "password": server.admin_password}
    admin = nobody.signed_in(nobody.post("login", json=body))
    users = {name: nobody.register(name) for name in ("plain", "loggedout", "deactivated", "locked", "changed")}
    users["guest"] = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    for user in users.values():
        # Known to the server's memory before it ends: that is where an ended token could live on.
        user.get("account/whoami")
    users["loggedout"].post("logout")
    users["deactivated"].with_password("POST", "account/deactivate")
    users["locked"].call("GET", "account/whoami")
    admin.put("/_matrix/client/v1/admin/lock/{userId}", users["locked"].user_id, json={"locked": True})
    other = users["changed"].login()
    other.with_password("POST", "account/password", json={"new_password": "another burrow"})
    unknown = Client(server.base_url, "@nobody:x", "wat_nobody")
    return {**users, "admin": admin, "none": nobody, "unknown": unknown}


def rows(server):
    """Method, path and auth of every endpoint."""
    lines = server.command("routes").stdout.splitlines()[1:]
    return [line.split("\t")[:3] for line in lines]


def refusal(client, method, path):
    path = re.sub(r"\{[^}]+\}", "x", path)
    response = client.send_raw(method, path, json={} if method in ("PUT", "POST") else None)
    try:
        return response.status_code, response.json().get("errcode")
    except ValueError:
        return response.status_code, None


WANTED = {
    # kind of credential: auth of the row → the refusal
    "none": {"Required": MISSING, "Guest": MISSING, "Locked": MISSING, "Admin": MISSING},
    "unknown": dict.fromkeys(("Optional", "Required", "Guest", "Locked", "Admin"), UNKNOWN),
    "loggedout": dict.fromkeys(("Optional", "Required", "Guest", "Locked", "Admin"), UNKNOWN),
    "deactivated": dict.fromkeys(("Optional", "Required", "Guest", "Locked", "Admin"), UNKNOWN),
    "changed": dict.fromkeys(("Optional", "Required", "Guest", "Locked", "Admin"), UNKNOWN),
    "locked": dict.fromkeys(("Optional", "Required", "Guest", "Admin"), LOCKED),
    "guest": {"Required": GUEST, "Admin": GUEST},
    "plain": {"Admin": FORBIDDEN},
}


@pytest.mark.parametrize("kind", WANTED)
def test_who_is_let_in_where(server, clients, kind):
    wrong = []
    for method, path, auth in rows(server):
        wanted = WANTED[kind].get(auth)
        if wanted and (found := refusal(clients[kind], method, path)) != wanted:
            wrong.append(f"{method} {path}: {found}, wanted {wanted}")
    assert not wrong, "\n".join(wrong)


def test_an_empty_token_is_an_unknown_one(server, clients):
    for headers in ({"Authorization": "Bearer "}, {"Authorization": "Bearer"}):
        response = clients["none"].send_raw("GET", "/_matrix/client/v3/account/whoami", headers=headers)
        assert response.status_code == 401, headers
    response = clients["none"].send_raw("GET", "/_matrix/client/v3/account/whoami?access_token=")
    assert (response.status_code, response.json()["errcode"]) == UNKNOWN


def test_a_locked_user_can_log_out(clients):
    locked = clients["locked"]
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": locked.user_id},
        "password": PASSWORD,
    }
    clients["none"].post("login", json=body, status=401, errcode="M_USER_LOCKED")
    locked.post("logout")
    locked.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")


def test_administrators_are_not_locked_out(clients):
    admin = clients["admin"]
    path = "/_matrix/client/v1/admin/{what}/{userId}"
    admin.put(path, "lock", admin.user_id, json={"locked": True}, status=403, errcode="M_FORBIDDEN")
    admin.put(path, "suspend", admin.user_id, json={"suspended": True}, status=403, errcode="M_FORBIDDEN")
    admin.get(path, "lock", "@nobody:elsewhere", status=400, errcode="M_INVALID_PARAM")
    admin.get(path, "lock", clients["deactivated"].user_id, status=404, errcode="M_NOT_FOUND")


def test_an_authentication_is_good_for_its_request_only(clients):
    plain = clients["plain"]
    devices = [plain.login().device_id for _ in range(2)]
    asked = plain.delete("devices/{deviceId}", devices[0], json={}, status=401)
    auth = {
        "type": "m.login.password",
        "session": asked["session"],
        "identifier": {"type": "m.id.user", "user": plain.user_id},
        "password": PASSWORD,
    }
    # Another path, another body, another user.
    plain.delete("devices/{deviceId}", devices[1], json={"auth": auth}, status=403, errcode="M_FORBIDDEN")
    body = {"devices": devices, "auth": auth}
    plain.post("delete_devices", json=body, status=403, errcode="M_FORBIDDEN")
    other = clients["none"].register("other")
    other.delete("devices/{deviceId}", devices[0], json={"auth": auth}, status=403, errcode="M_FORBIDDEN")
    plain.delete("devices/{deviceId}", devices[0], json={"auth": auth})
    # What was opened by it is opened once, also when the same is asked for again; and for others it stays closed.
    plain.login(device_id=devices[0])
    assert plain.delete("devices/{deviceId}", devices[0], json={"auth": auth}) == {}
    assert devices[0] in [device["device_id"] for device in plain.get("devices")["devices"]]
    plain.delete("devices/{deviceId}", devices[1], json={"auth": auth}, status=403, errcode="M_FORBIDDEN")
    other.delete("devices/{deviceId}", devices[0], json={"auth": auth}, status=403, errcode="M_FORBIDDEN")
