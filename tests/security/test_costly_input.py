"""Input that is made to cost: it is refused with its code, or answered in no time, and the server lives on.

The class of fault: push rules, filters, globs, JSON depth, header count, slow bodies without a limit.
"""

import contextlib
import json
import socket
import time

import pytest

# What an honest request of this kind takes is milliseconds; a loaded machine gets much more.
SECONDS_MAX = 5


@pytest.fixture(autouse=True)
def quick(nobody):
    """No test here may take long, and the server must answer after it."""
    start = time.monotonic()
    yield
    nobody.get("/_matrix/client/versions")
    assert time.monotonic() - start < SECONDS_MAX


def test_globs_that_could_be_tried_in_many_ways(alice, bob, room):
    pattern = "*a" * 60 + "*b"
    rule = {"pattern": pattern, "actions": ["notify"]}
    path = "pushrules/global/{kind}/{ruleId}"
    bob.put(path, "content", "costly", json=rule)
    conditions = [{"kind": "event_match", "key": "content.body", "pattern": "?*" * 100 + "b"}]
    answer = bob.put(path, "override", "dear", json={"conditions": conditions, "actions": []}, status=(200, 400))
    assert answer == {} or answer["errcode"] in ("M_INVALID_PARAM", "M_BAD_JSON", "M_TOO_LARGE", "M_UNKNOWN")
    bob.sync()
    for _ in range(5):
        alice.send(room, "a" * 30_000)
    bob.sync()


def test_more_push_rules_than_anybody_has(alice):
    rule = {"pattern": "x", "actions": []}
    path = "pushrules/global/{kind}/{ruleId}"
    alice.put(path, "content", "long", json={"pattern": "x" * 100_000, "actions": []}, status=(400, 413))
    conditions = [{"kind": "event_match", "key": "type", "pattern": "x"}] * 1000
    alice.put(path, "override", "many", json={"conditions": conditions, "actions": []}, status=(400, 413))
    alice.put(path, "content", "r" * 300, json=rule, status=(400, 413, 414, 431))
    tweak = {"set_tweak": "sound", "value": "x" * 200_000}
    for number in range(5):
        answer = alice.put(path, "content", f"t{number}", json={"pattern": "x", "actions": [tweak]}, status=(200, 400, 413))
        if answer:
            return
    raise AssertionError("a ruleset may have a megabyte")


def test_filters_with_globs_and_lists(alice):
    types = ["*a" * 50 + "*b"] * 500
    wanted = {"room": {"timeline": {"types": types, "limit": 10**9}}}
    answer = alice.post("user/{userId}/filter", alice.user_id, json=wanted, status=(200, 400))
    room = alice.create_room()
    alice.send(room, "x", type="a" * 200)
    if "filter_id" in answer:
        alice.sync(filter=answer["filter_id"])


@pytest.mark.parametrize("limit", ["1000000000", "-1", "99999999999999999999", "x"])
def test_limits_beyond_all_measure(alice, room, limit):
    for _ in range(3):
        alice.send(room, "x")
    alice.get("rooms/{roomId}/messages", room, query={"dir": "b", "limit": limit}, status=(200, 400))
    alice.get("/_matrix/client/v1/rooms/{roomId}/threads", room, query={"limit": limit}, status=(200, 400))
    alice.get("publicRooms", query={"limit": limit}, status=(200, 400))


@pytest.mark.parametrize("opening,closing", [("[", "]"), ('{"a":', "}")])
def test_json_as_deep_as_a_body_is_long(alice, room, opening, closing):
    body = '{"body":' + opening * 60_000 + "1" + closing * 60_000 + "}"
    path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/deep"
    response = alice.send_raw("PUT", path, data=body)
    assert response.status_code in (400, 413), response.text
    assert response.json()["errcode"] in ("M_BAD_JSON", "M_NOT_JSON", "M_TOO_LARGE")


def test_a_body_of_one_key_many_times(alice, room):
    body = "{" + ",".join('"a":1' for _ in range(30_000)) + "}"
    path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/same"
    assert alice.send_raw("PUT", path, data=body).status_code in (200, 400, 413)


def test_names_that_are_long(alice, room):
    long = "x" * 20_000
    alice.put("user/{userId}/account_data/{type}", alice.user_id, long, json={}, status=(400, 413, 414, 431))
    alice.put("user/{userId}/rooms/{roomId}/tags/{tag}", alice.user_id, room, long, json={}, status=(400, 413, 414, 431))
    alice.send(room, "x", txn=long, status=(200, 400, 413, 414, 431))
    alice.put("directory/room/{roomAlias}", f"#{long[:500]}:{alice.server_name}", json={"room_id": room}, status=400)
    alice.post("user_directory/search", json={"search_term": long * 10}, status=(200, 400, 413))


def raw(base_url, head, seconds=SECONDS_MAX):
    """Sends bytes on a connection of their own and gives what came back first; nothing if the server only closed."""
    host, port = base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        # Who has been refused is not read on from, but has an answer all the same.
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            return connection.recv(65536)
    return b""


def status(answer):
    """The status of an answer, which there must be."""
    assert answer.startswith(b"HTTP/1."), answer[:200]
    return int(answer.split()[1])


def test_headers_without_end(base_url):
    many = b"".join(b"X-%d: y\r\n" % number for number in range(5000))
    few_too_many = b"".join(b"X-%d: y\r\n" % number for number in range(101))
    for head in (many, few_too_many, b"X: " + b"y" * 200_000 + b"\r\n"):
        answer = raw(base_url, b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
        assert status(answer) in (400, 431), answer[:200]


@pytest.mark.parametrize("version", [b"HTTP/9.9", b"HTTP/1.1 x", b"FTP"])
def test_versions_that_are_none(base_url, version):
    assert status(raw(base_url, b"GET /_matrix/client/versions " + version + b"\r\nHost: x\r\n\r\n")) in (400, 505)


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"99999999999999999999", b"5, 6"])
def test_lengths_that_are_none(base_url, length):
    head = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n{}"
    assert status(raw(base_url, head)) in (400, 413)


def test_two_ways_to_say_where_a_body_ends(base_url):
    """What a proxy and the server could read as different requests is refused."""
    head = (
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    answer = raw(base_url, head)
    assert b"smuggled" not in answer and answer.count(b"HTTP/1.1 ") <= 1, answer[:400]


def test_a_body_that_does_not_come_holds_up_nobody(base_url, nobody):
    host, port = base_url.removeprefix("http://").split(":")
    head = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    slow = [socket.create_connection((host, int(port)), timeout=SECONDS_MAX) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(head)
        assert "flows" in nobody.get("login")
    finally:
        for connection in slow:
            connection.close()


def test_transaction_ids_belong_to_their_device(alice, bob, room):
    """The same id from another device or user is another event; from the same device the same one."""
    first = alice.send(room, "once", txn="id")
    assert alice.send(room, "twice", txn="id") == first
    assert bob.send(room, "mine", txn="id") != first
    phone = alice.login()
    assert phone.send(room, "from the phone", txn="id") != first
    said = json.dumps(bob.messages(room))
    assert "twice" not in said and "from the phone" in said
