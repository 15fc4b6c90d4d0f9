"""Requests of other servers: who is believed to have sent them (server-server API, "Request Authentication").

Those of this server are judged by each hand-written peer as they come.
"""

import concurrent.futures
import json
import re
from email.message import Message

import pytest
import requests

from harness.client import Client
from harness.participant import path
from harness.peer import DAY_MS, Key, Request, authorization, now_ms
from harness.server import free_port

LIST = "/_matrix/federation/v1/publicRooms"
KEYS = "/_matrix/key/v2/server"
QUERY = path("v1/user/keys/query")


def assert_refused(response, status=401, errcode="M_UNAUTHORIZED"):
    found, body = response
    assert (found, body.get("errcode")) == (status, errcode), body
    assert body["error"]


def assert_answered(response):
    status, body = response
    # Other tests may have listed rooms.
    assert status == 200 and isinstance(body.get("chunk"), list), body


def test_a_signed_request_is_answered(server, peer):
    assert_answered(peer.send(server, "GET", LIST))
    assert_answered(peer.send(server, "GET", f"{LIST}?limit=5&x=%7E~%20+y"))
    assert_answered(peer.send(server, "POST", LIST, {"limit": 3, "filter": {"generic_search_term": "žluť\u2028\n"}}))
    assert len(peer.asked(KEYS)) == 1, "the key was fetched once"


def test_the_body_counts_as_json_and_not_as_text(server, peer):
    content = {"limit": 3, "filter": {"generic_search_term": "ž/"}}
    body = b' {"filter" : {"generic_search_term":"\\u017e\\/"},\n "limit": 3 }'
    assert json.loads(body) == content
    assert_answered(peer.send(server, "POST", LIST, content, body=body))


def test_a_request_without_signature(server, peer):
    assert_refused(peer.send(server, "GET", LIST, headers=[]))
    assert_refused(peer.send(server, "GET", LIST, headers=["Bearer abc"]))
    assert_refused(peer.send(server, "GET", f"{LIST}?access_token=abc", headers=[]))
    for malformed in ("X-Matrix", 'X-Matrix origin="a.test"', 'X-Matrix origin="a b",key="ed25519:a",sig="x"'):
        assert_refused(peer.send(server, "GET", LIST, headers=[malformed]))


def test_the_destination(server, peer):
    assert_refused(peer.send(server, "GET", LIST, destination="elsewhere.test"))
    # What is signed is for this server, what the header says is not; and the other way round.
    parameters = {"origin": peer.name, "destination": server.name, "key": peer.key}
    signed = authorization("GET", LIST, **parameters)
    assert_refused(peer.send(server, "GET", LIST, headers=[signed.replace(server.name, "else.test")]))
    forged = authorization("GET", LIST, **{**parameters, "destination": "else.test"})
    assert_refused(peer.send(server, "GET", LIST, headers=[forged.replace("else.test", server.name)]))
    # Servers older than v1.3 leave it out of the header.
    older = signed.replace(f'destination="{server.name}",', "")
    assert older != signed
    assert_answered(peer.send(server, "GET", LIST, headers=[older]))


def test_the_forms_of_the_header(server, peer):
    signed = authorization("GET", LIST, peer.name, server.name, peer.key)
    _, parameters = signed.split(" ", 1)
    parts = parameters.split(",")
    unquoted = ",".join(part.replace('"', "") if part.startswith(("origin", "key")) else part for part in parts)
    loose = "x-MATRIX   " + " ,\t".join(reversed(parts)).replace("origin=", "Origin=") + ' , more="a,b\\"c"'
    for header in (f"X-Matrix {unquoted}", loose, signed.replace("ed25519", "ed\\25519")):
        assert_answered(peer.send(server, "GET", LIST, headers=[header]))


def test_what_was_changed_on_the_way(server, peer):
    content = {"limit": 3}
    assert_answered(peer.send(server, "POST", LIST, content))
    for body in (b'{"limit":4}', b"{}", b"", b'{"limit":3,"limit":4}'):
        assert_refused(peer.send(server, "POST", LIST, content, body=body))
    signed = [authorization("GET", f"{LIST}?limit=1", peer.name, server.name, peer.key)]
    for method, target in (("GET", f"{LIST}?limit=2"), ("GET", LIST), ("GET", f"{LIST}?limit=%31")):
        assert_refused(peer.send(server, method, target, headers=signed))
    assert_refused(peer.send(server, "POST", f"{LIST}?limit=1", headers=signed))


def test_a_body_that_is_not_json(server, peer):
    assert_refused(peer.send(server, "POST", LIST, {}, body=b"{"), 400, "M_NOT_JSON")
    deep = b'{"a":' + b"[" * 40_000 + b"]" * 40_000 + b"}"
    assert_refused(peer.send(server, "POST", LIST, {}, body=deep), 400, "M_NOT_JSON")
    assert_refused(peer.send(server, "POST", LIST, {}, body=b" " * 300_000), 413, "M_TOO_LARGE")


def test_somebody_elses_key(server, network, peer):
    assert_answered(peer.send(server, "GET", LIST))
    # Another key under the same id; another server's key under its own name.
    assert_refused(peer.send(server, "GET", LIST, key=Key()))
    other = network.peer()
    other.key = Key("other")
    assert_answered(other.send(server, "GET", LIST))
    assert_refused(peer.send(server, "GET", LIST, key=other.key))
    assert_refused(other.send(server, "GET", LIST, origin=peer.name))
    # This server's own name is nobody's to use.
    assert_refused(peer.send(server, "GET", LIST, origin=server.name))


def test_several_keys(server, network):
    peer, second = network.peer(), Key("second")
    peer.changes["verify_keys"] = {key.id: {"key": key.public} for key in (peer.key, second)}
    good = authorization("GET", LIST, peer.name, server.name, second)
    unknown = authorization("GET", LIST, peer.name, server.name, Key("unknown"))
    other = authorization("GET", LIST, network.peer().name, server.name, Key())

    assert_answered(peer.send(server, "GET", LIST, headers=[unknown, good]))
    assert_answered(peer.send(server, "GET", LIST, headers=[good, unknown]))
    assert_answered(peer.send(server, "GET", LIST, headers=["Bearer abc", good]))
    assert_refused(peer.send(server, "GET", LIST, headers=[unknown]))
    assert_refused(peer.send(server, "GET", LIST, headers=[good, other]))
    assert_refused(peer.send(server, "GET", LIST, headers=[good] * 20))


@pytest.mark.parametrize("valid_until", [-1, -DAY_MS])
def test_a_key_that_is_no_longer_valid(server, peer, valid_until):
    peer.changes["valid_until_ts"] = now_ms() + valid_until
    assert_refused(peer.send(server, "GET", LIST))


def test_a_key_that_is_out_of_use(server, peer):
    old = Key("old")
    peer.changes["old_verify_keys"] = {old.id: {"key": old.public, "expired_ts": now_ms() + DAY_MS}}
    assert_answered(peer.send(server, "GET", LIST))
    assert_refused(peer.send(server, "GET", LIST, key=old))


def test_a_key_that_is_never_trusted(server, peer):
    peer.key = Key("leaked")
    assert_refused(peer.send(server, "GET", LIST))


def test_keys_that_are_not_rightly_published(server, network):
    def published_as(change):
        peer = network.peer()
        peer.answers[KEYS] = lambda _: (200, change(peer))
        return peer.send(server, "GET", LIST)

    stranger = Key()
    changed = {"valid_until_ts": now_ms() + 2 * DAY_MS}
    for change in (
        lambda peer: {},
        lambda peer: [],
        lambda peer: b"not JSON",
        lambda peer: peer.published(server_name="other.test"),
        lambda peer: {**peer.published(), **changed},
        lambda peer: {**peer.published(), "signatures": {}},
        lambda peer: {**peer.published(), "verify_keys": {peer.key.id: {"key": stranger.public}}},
        lambda peer: peer.published(verify_keys={peer.key.id: {"key": "AAAA"}}),
        lambda peer: peer.published(verify_keys={f"ed25519:k{n}": {"key": Key().public} for n in range(300)}),
    ):
        assert_refused(published_as(change))


def test_a_server_that_cannot_be_reached(server, network, peer):
    assert_refused(peer.send(server, "GET", LIST, origin="nowhere.test"))
    gone = network.peer()
    gone.close()
    assert_refused(gone.send(server, "GET", LIST))


def test_a_server_on_the_list(server, network):
    peer = network.peer("a.denied.test")
    assert_refused(peer.send(server, "GET", LIST), 403, "M_FORBIDDEN")
    assert_refused(peer.send(server, "GET", LIST, origin=peer.name.upper()), 403, "M_FORBIDDEN")
    assert peer.requests == [], "it is not even asked for its keys"


def test_who_is_on_the_list_is_not_asked_for_anything(network, alice):
    denied = network.peer("c.denied.test")
    bob, room = f"@bob:{denied.name}", alice.create_room()
    forbidden = {"status": 403, "errcode": "M_FORBIDDEN"}
    answers = [
        alice.get("profile/{userId}", bob, **forbidden),
        alice.get("directory/room/{roomAlias}", f"#burrow:{denied.name}", **forbidden),
        alice.get("publicRooms", query={"server": denied.name}, **forbidden),
        alice.join(f"#burrow:{denied.name}", **forbidden),
        alice.join(f"!burrow:{denied.name}", query={"via": denied.name}, **forbidden),
        alice.post("rooms/{roomId}/invite", room, json={"user_id": bob}, **forbidden),
    ]
    assert all(denied.name in answer["error"] for answer in answers), answers
    answer = alice.post("keys/query", json={"device_keys": {bob: []}})
    assert not answer.get("device_keys") and answer["failures"][denied.name]["status"] == 403
    # A room is made all the same: who tried again would make another one.
    assert alice.create_room(invite=[bob])
    assert denied.requests == []


def test_that_a_server_is_on_the_list_is_no_fault(network, tmp_path):
    with network.server(tmp_path, "--federation-deny", "*.denied.test") as server:
        alice = Client(server.base_url).register("alice")
        alice.post("rooms/{roomId}/invite", alice.create_room(), json={"user_id": "@bob:c.denied.test"}, status=403)
    assert "warren::request" not in server.log_path.read_text()


def test_of_several_servers_one_on_the_list_says_least(network, alice, resident):
    denied, copy = network.peer("d.denied.test"), resident.create()
    resident.answer_make_join = lambda *_: (403, {"errcode": "M_FORBIDDEN", "error": "Not invited"})
    for via in ([denied.name, resident.name], [resident.name, denied.name]):
        answer = alice.join(copy.room_id, query={"via": via}, status=403)
        assert answer["error"] == "Not invited"
    assert denied.requests == []


def test_only_those_on_a_list_of_friends(network, tmp_path):
    friend, stranger = network.peer("a.friend.test"), network.peer("stranger.test")
    with network.server(tmp_path, "--federation-allow", "*.Friend.test") as server:
        assert_answered(friend.send(server, "GET", LIST))
        assert_refused(stranger.send(server, "GET", LIST), 403, "M_FORBIDDEN")
        alice = Client(server.base_url).register("alice")
        alice.get("profile/{userId}", f"@bob:{stranger.name}", status=403, errcode="M_FORBIDDEN")
    assert stranger.requests == []


def test_many_requests_wait_for_one_fetch(server, network):
    peer = network.peer()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for response in pool.map(lambda _: peer.send(server, "GET", LIST), range(32)):
            assert_answered(response)
    assert len(peer.asked(KEYS)) == 1


def test_the_key_outlives_a_restart(network, tmp_path):
    peer = network.peer()
    with network.server(tmp_path) as server:
        assert_answered(peer.send(server, "GET", LIST))
        peer.close()
        server.restart()
        assert_answered(peer.send(server, "GET", LIST))


def test_without_federation_there_is_none(tmp_path, network):
    peer = network.peer()
    with network.server(tmp_path, "--federation", "off") as server:
        for path in (LIST, KEYS, "/_matrix/federation/v1/version", f"/_matrix/key/v2/query/{peer.name}"):
            assert_refused(peer.send(server, "GET", path), 404, "M_UNRECOGNIZED")
        assert requests.get(f"{server.base_url}/_matrix/client/versions", timeout=10).status_code == 200
    assert peer.requests == []


def test_refusals_are_counted_by_their_reason(network, tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    peer = network.peer()
    with network.server(tmp_path, "--metrics-listen", address) as server:
        assert_refused(peer.send(server, "GET", LIST, headers=[]))
        assert_answered(peer.send(server, "GET", LIST))
        assert_refused(peer.send(server, "GET", LIST, key=Key()))
        page = requests.get(f"{address}/metrics", timeout=10).text
    for reason in ("unsigned", "wrong_signature"):
        assert f'warren_federation_refusals_total{{what="publicRooms",reason="{reason}"}} 1\n' in page, page
    assert 'warren_federation_requests_total{outcome="answered"} 1\n' in page, page


def test_the_judge_finds_requests_that_are_wrongly_signed(peer, alice):
    """Whatever of what is signed is otherwise, and whoever else it is by or for."""
    peer.answers[QUERY] = lambda _: (200, {"device_keys": {}})
    alice.post("keys/query", json={"device_keys": {f"@bob:{peer.name}": []}})
    (right,) = peer.asked(QUERY)
    header = right.headers["Authorization"]
    assert right.body and peer.signature_faults(right) == []

    def found(target=right.target, method=right.method, body=right.body, headers=(header,)):
        message = Message()
        for value in headers:
            message["Authorization"] = value
        return peer.signature_faults(Request(method, target, message, body))

    assert found() == []
    assert found(headers=[]) and found(headers=["Bearer x"]) and found(headers=[header, "X-Matrix nonsense"])
    assert found(target=f"{right.target}?x") and found(method="PUT", target=path("v1/send/1"))
    assert found(body=right.body.replace(b"bob", b"bot")) and found(body=b"")
    origin, (key_id,) = alice.server_name, re.findall('key="ed25519:(.*?)"', header)
    for old, new in ((peer.name, "elsewhere.test"), (origin, peer.name), ('key="ed25519:', 'key="ed25519:x'), ('sig="', 'sig="A')):
        assert old in header and found(headers=[header.replace(old, new)]), new
    forged = authorization(right.method, right.target, origin, peer.name, Key(key_id), json.loads(right.body))
    assert found(headers=[forged])
    # What is rightly signed for another server is not for this one; what nobody has to sign may come without.
    peer.name = "elsewhere.test"
    assert found()
    assert found(method="GET", target=path("v1/version"), body=b"", headers=[]) == []
    assert found(method="GET", target=KEYS, body=b"", headers=[]) == []
