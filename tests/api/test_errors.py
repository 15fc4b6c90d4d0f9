"""What every endpoint has in common: tokens, bodies, unknown paths, CORS (spec: API Standards)."""

import os

import pytest
import requests

from harness import served, specification
from harness.client import SECONDS_MAX, Client, address

WHOAMI = "/_matrix/client/v3/account/whoami"


def test_a_missing_token(nobody):
    nobody.get("account/whoami", status=401, errcode="M_MISSING_TOKEN")


def test_an_unknown_token(base_url):
    answer = Client(base_url, token="burrow").get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    assert answer.get("soft_logout", False) is False


def test_an_unknown_token_is_told_before_the_body_is_read(base_url):
    headers = {"Content-Type": "application/json"}
    Client(base_url, token="burrow").post("createRoom", data="{", headers=headers, status=401)


@pytest.mark.parametrize("header", ["Bearer", "Basic abc", "burrow"])
def test_a_malformed_authorization_header(nobody, header):
    answer = nobody.get("account/whoami", headers={"Authorization": header}, status=401)
    assert answer["errcode"] in ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b'{"a": 1} x', b"{'a': 1}", b'{"a": }'])
def test_not_json(alice, body):
    headers = {"Content-Type": "application/json"}
    nowhere = f"!nowhere:{alice.server_name}"
    answer = alice.post("join/{roomIdOrAlias}", nowhere, data=body, headers=headers, status=(400, 403, 404))
    assert answer["errcode"] == "M_NOT_JSON" or not body


@pytest.mark.parametrize("body", [b"[]", b"7", b'"text"', b"null"])
def test_json_that_is_no_object(alice, body):
    headers = {"Content-Type": "application/json"}
    answer = alice.post("createRoom", data=body, headers=headers, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_NOT_JSON")


def test_deeply_nested_json(alice):
    body = b'{"creation_content":' + b'{"a":' * 100000 + b"1" + b"}" * 100001
    answer = alice.post("createRoom", data=body, headers={"Content-Type": "application/json"}, status=(400, 413))
    assert answer["errcode"] in ("M_BAD_JSON", "M_NOT_JSON", "M_TOO_LARGE")


UNREADABLE = {
    "deep arrays": "[" * 20_000 + "]" * 20_000,
    "deep objects": '{"a":' * 100 + "1" + "}" * 100,
    "infinite": "1e400",
    "half a pair": '"\\ud83d"',
}
# Whatever is kept as it came: where it is put, and in what.
KEPT = {
    "account data": ("PUT", "user/{userId}/account_data/org.example.a", "%s"),
    "account data of a room": ("PUT", "user/{userId}/rooms/{roomId}/account_data/org.example.a", "%s"),
    "profile": ("PUT", "profile/{userId}/org.example.a", "%s"),
    "filter": ("POST", "user/{userId}/filter", "%s"),
    "tag": ("PUT", "user/{userId}/rooms/{roomId}/tags/u.a", "%s"),
    "push rule": ("PUT", "pushrules/global/override/org.example.a", '{"actions": [%s]}'),
    "actions of a push rule": ("PUT", "pushrules/global/underride/.m.rule.message/actions", '{"actions": [%s]}'),
    "backup": ("POST", "room_keys/version", '{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": %s}'),
}


@pytest.mark.ours("Synapse fails inside, or takes it")
@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("kept", KEPT)
def test_what_others_could_not_read_is_not_kept(alice, kept, what):
    """What comes with it would be lost on them, too."""
    method, path, around = KEPT[kept]
    of_room = [alice.create_room()] if "{roomId}" in path else []
    values = [alice.user_id] * path.count("{userId}") + of_room

    def put(value, status):
        data = around % ('{"org.example.a": %s}' % value)
        return alice.call(method, path, *values, data=data, headers={"Content-Type": "application/json"}, status=status)

    put("[0.5, 1e300, " + "[" * 90 + "]" * 90 + "]", 200)
    assert put(UNREADABLE[what], 400)["errcode"] == "M_BAD_JSON"


@pytest.mark.ours("Synapse drops the connection")
def test_a_body_that_is_too_large(alice):
    body = b'{"name": "' + b"x" * (8 * 1024 * 1024) + b'"}'
    alice.post(
        "createRoom", data=body, headers={"Content-Type": "application/json"}, status=413, errcode="M_TOO_LARGE"
    )


def test_the_content_type_of_the_request_does_not_matter(alice):
    answer = alice.post("createRoom", data=b'{"name": "plain"}', headers={"Content-Type": "text/plain"})
    assert answer["room_id"]


def test_an_unknown_path(alice):
    for path in ("/_matrix/client/v3/burrow", "/_matrix/client/v99/sync", "/_matrix/burrow"):
        alice.get(path, status=404, errcode="M_UNRECOGNIZED")


@pytest.mark.parametrize("method, path", [("PUT", "sync"), ("GET", "createRoom"), ("DELETE", "account/whoami")])
def test_a_method_that_the_path_does_not_have(alice, method, path):
    alice.call(method, path, status=405, errcode="M_UNRECOGNIZED")


@pytest.mark.ours("Synapse names no methods")
@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("PUT", "sync", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "createRoom", {"POST", "OPTIONS"}),
        ("POST", "profile/%40a%3Ab/displayname", {"GET", "PUT", "DELETE", "HEAD", "OPTIONS"}),
    ],
)
def test_the_methods_that_a_path_has_are_told(alice, method, path, allowed):
    """RFC 9110, 15.5.6: a 405 carries `Allow`."""
    answer = alice.send_raw(method, f"/_matrix/client/v3/{path}", json={})
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed
    assert "Allow" not in alice.send_raw("GET", "/_matrix/client/v3/burrow").headers


@pytest.mark.parametrize("origin", [None, "https://client.example"])
def test_cross_origin_requests_are_welcome(alice, origin):
    headers = {"Origin": origin} if origin else {}
    for method, path in (("OPTIONS", WHOAMI), ("GET", WHOAMI), ("GET", "/_matrix/client/versions")):
        response = alice.send_raw(method, path, headers=headers)
        assert response.status_code in (200, 204), path
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        if method == "OPTIONS":
            methods = {word.strip() for word in response.headers["Access-Control-Allow-Methods"].split(",")}
            assert {"GET", "POST", "PUT", "DELETE", "OPTIONS"} <= methods
            allowed = {word.strip().lower() for word in response.headers["Access-Control-Allow-Headers"].split(",")}
            assert {"x-requested-with", "content-type", "authorization"} <= allowed


def test_errors_are_cross_origin_too(nobody):
    response = nobody.send_raw("GET", WHOAMI)
    assert response.status_code == 401
    assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_a_preflight_needs_no_token_and_no_room(nobody):
    response = nobody.send_raw("OPTIONS", "/_matrix/client/v3/rooms/!none:none/send/m.room.message/1")
    assert response.status_code in (200, 204)


def test_escaped_paths(alice, bob, room):
    key = "a/b?c#d e%2Fü"
    alice.set_state(room, "org.example.key", {"key": key}, key=key)
    assert bob.state(room, "org.example.key", key) == {"key": key}


@pytest.mark.parametrize("path", ["/_matrix/client/v3/rooms/%ff%fe/state", "/_matrix/client/v3/rooms/%zz/state"])
def test_paths_that_are_not_utf8(alice, path):
    response = alice.send_raw("GET", path)
    assert response.status_code in (400, 403, 404)
    assert response.json()["errcode"]


def is_secured(operation):
    security = operation.definition.get("security", [])
    # A token is optional where the specification also lists "no security" for the operation.
    return "accessTokenBearer" in str(security) and {} not in security


@pytest.mark.skipif("HOMESERVER_URL" in os.environ, reason="the table is Warren's own")
@pytest.mark.parametrize("token, errcode", [(None, "M_MISSING_TOKEN"), ("", "M_MISSING_TOKEN"), ("x", "M_UNKNOWN_TOKEN")])
def test_every_endpoint_wants_a_valid_token(base_url, token, errcode):
    endpoints = [(method, path) for method, path, operation in served.operations(specification.API) if is_secured(operation)]
    assert len(endpoints) > 50
    client = Client(base_url)
    for method, path in endpoints:
        values = ["x"] * path.count("{")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = client.send_raw(method, address(path, *values), json={}, headers=headers)
        shown = f"{method} {path} → {response.status_code} {response.text[:200]}"
        assert response.status_code == 401, shown
        expected = ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN") if token == "" else (errcode,)
        assert response.json()["errcode"] in expected, shown


@pytest.mark.skipif("HOMESERVER_URL" in os.environ, reason="the table is Warren's own")
def test_every_endpoint_is_served_under_every_prefix(base_url):
    """Asked past the client that notes what was asked, and of no name that anything could have."""
    table = served.rows()
    assert len(table) > 150
    for method, path, paths in table:
        assert path in paths
        for prefix in paths:
            target = address(prefix, *["!"] * prefix.count("{"))
            response = requests.request(method, base_url + target, json={}, timeout=SECONDS_MAX)
            is_known = response.status_code not in (404, 405) or response.json()["errcode"] != "M_UNRECOGNIZED"
            assert is_known, f"{method} {target} → {response.status_code} {response.text[:200]}"


@pytest.mark.skipif("HOMESERVER_URL" in os.environ, reason="the table is Warren's own")
def test_older_clients_find_every_endpoint_under_r0():
    """The versions up to r0.6.1 had all that v3 has but refresh tokens, which came with v1.3."""
    lacking = [
        path
        for _, path, paths in served.rows()
        if path.startswith("/_matrix/client/v3/") and path.replace("/v3/", "/r0/", 1) not in paths
    ]
    assert lacking == ["/_matrix/client/v3/refresh"]


# Endpoints that cannot refuse anything but a missing token: they take nothing that could be wrong.
NEVER_REFUSE = {
    "getCapabilities", "getConfig", "getConfigAuthed", "getDevices", "getLoginFlows", "getTokenOwner", "getTurnServer",
    "getVersions", "getWellknown", "logout", "logout_all",
}  # fmt: skip


@pytest.mark.last
@pytest.mark.skipif("HOMESERVER_URL" in os.environ, reason="the table is Warren's own")
def test_every_endpoint_was_asked_rightly_and_wrongly():
    lacking = served.lacking(specification.API, NEVER_REFUSE)
    assert not lacking, "all of tests/api must run together\n" + "\n".join(lacking)
