"""Requests whose bodies come late: what their sender may no longer do when the body is there, they may not have done.

The class of fault: a session that is looked at when the head of a request comes, and acts when its body comes, which may be
a minute later.
"""

import json
import socket

import pytest

from harness.client import SECONDS_MAX, Client, unique


class HeldBack:
    """A request whose sender was admitted, and half of whose body has not come yet."""

    def __init__(self, client, method, path, content):
        host, port = client.base_url.removeprefix("http://").split(":")
        body = json.dumps(content).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self.connection = socket.create_connection((host, int(port)), timeout=SECONDS_MAX)
        self.connection.sendall(head.encode())
        # The body is asked for when the sender has been admitted.
        assert self.connection.recv(65536).startswith(b"HTTP/1.1 100")
        half = len(body) // 2
        self.connection.sendall(body[:half])
        self.rest = body[half:]

    def finish(self):
        """The status and the content of the answer."""
        with self.connection:
            self.connection.sendall(self.rest)
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                piece = self.connection.recv(65536)
                assert piece, answer
                answer += piece
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content)


@pytest.fixture
def rabbit(base_url):
    return Client(base_url).register("rabbit")


def device_keys(client):
    return {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{client.device_id}": "A" * 43},
        "signatures": {},
    }


def test_keys_of_a_device_that_logs_out_meanwhile(rabbit, base_url):
    other = Client(base_url).register("other")
    upload = HeldBack(rabbit, "POST", "/_matrix/client/v3/keys/upload", {"device_keys": device_keys(rabbit)})
    rabbit.post("logout")
    status, content = upload.finish()
    assert (status, content["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    known = other.post("keys/query", json={"device_keys": {rabbit.user_id: []}})["device_keys"]
    assert known.get(rabbit.user_id, {}) == {}


def test_a_join_and_a_message_of_a_session_that_ends_meanwhile(rabbit, base_url):
    other = Client(base_url).register("other")
    joined = other.create_room(preset="public_chat")
    entered = other.create_room(preset="public_chat")
    rabbit.join(joined)
    join = HeldBack(rabbit, "POST", f"/_matrix/client/v3/rooms/{entered}/join", {"reason": "late"})
    path = f"/_matrix/client/v3/rooms/{joined}/send/m.room.message/{unique('txn')}"
    message = HeldBack(rabbit, "PUT", path, {"msgtype": "m.text", "body": "late"})
    rabbit.post("logout/all")
    for request in (join, message):
        status, content = request.finish()
        assert (status, content["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    assert rabbit.user_id not in other.get("rooms/{roomId}/joined_members", entered)["joined"]
    told = other.get("rooms/{roomId}/messages", joined, query={"dir": "b", "limit": "10"})["chunk"]
    assert all(event["content"].get("body") != "late" for event in told)


def test_a_body_in_pieces_is_taken_while_the_session_lasts(rabbit):
    upload = HeldBack(rabbit, "POST", "/_matrix/client/v3/keys/upload", {"device_keys": device_keys(rabbit)})
    rabbit.get("account/whoami")
    status, content = upload.finish()
    assert status == 200, content
