"""HTTP/1.1 as some clients speak it: what lies behind a request holds up no answer to it."""

import http.client
import json
import socket

import pytest

from harness.client import address

SECONDS_MAX = 10
VERSIONS = b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n"


class Connection:
    """One that stays open, whose answers are read one after the other."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=SECONDS_MAX)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        """Status and JSON of the next answer."""
        line = self.file.readline()
        assert line.startswith(b"HTTP/1.1 "), f"no answer: {line}"
        length = http.client.parse_headers(self.file)["Content-Length"]
        return int(line.split()[1]), json.loads(self.file.read(int(length)) or b"null")

    def is_closed(self):
        return self.file.read(1) == b""


@pytest.fixture
def connection(base_url):
    host, port = base_url.removeprefix("http://").split(":")
    connection = Connection((host, int(port)))
    yield connection
    connection.file.close()
    connection.socket.close()


def test_an_end_of_line_behind_a_body(connection, alice):
    """As some scripts send it; servers ignore it before the next request (RFC 9112, 2.2)."""
    identifier = {"type": "m.id.user", "user": alice.user_id}
    body = json.dumps({"type": "m.login.password", "identifier": identifier, "password": "wrong"}).encode()
    head = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.send(head + body + b"\r\n")
    status, said = connection.answer()
    assert (status, said["errcode"]) == (403, "M_FORBIDDEN")
    connection.send(VERSIONS + b"\r\n")
    assert connection.answer()[0] == 200


def test_the_beginning_of_the_next_request(connection):
    connection.send(VERSIONS + b"\r\n" + VERSIONS)
    status, said = connection.answer()
    assert status == 200 and said["versions"]
    connection.send(b"\r\n")
    assert connection.answer() == (200, said)


def test_several_requests_at_once(connection):
    """They are answered in their order, and the last is not waited for."""
    whole = VERSIONS + b"\r\n"
    connection.send(whole * 3 + whole.replace(b"versions", b"nothing") + VERSIONS)
    assert [connection.answer()[0] for _ in range(4)] == [200, 200, 200, 404]
    connection.send(b"\r\n")
    assert connection.answer()[0] == 200


def test_each_request_of_several_at_once_sees_what_those_before_it_did(connection, alice):
    path = address("user/{userId}/account_data/{type}", alice.user_id, "org.example.colour")

    def request(method, content=None):
        body = "" if content is None else json.dumps(content)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    brown, grey = {"colour": "brown"}, {"colour": "grey"}
    connection.send(request("PUT", brown) + request("GET") + request("PUT", grey) + request("GET"))
    assert [connection.answer() for _ in range(4)] == [(200, {}), (200, brown), (200, {}), (200, grey)]


def test_a_byte_behind_a_request_that_waits(connection, alice):
    since = alice.sync()["next_batch"]
    line = f"GET /_matrix/client/v3/sync?since={since}&timeout=300 HTTP/1.1\r\n"
    connection.send(f"{line}Host: x\r\nAuthorization: Bearer {alice.token}\r\n\r\nG".encode())
    status, said = connection.answer()
    assert status == 200 and said["next_batch"]


def test_a_body_that_is_not_declared(connection):
    """It is taken for the next request, and is none; the request before it is answered all the same."""
    connection.send(VERSIONS + b"\r\n" + b'{"a": 1}')
    status, said = connection.answer()
    assert status == 200 and said["versions"]
    assert connection.answer()[0] == 400
    assert connection.is_closed()
