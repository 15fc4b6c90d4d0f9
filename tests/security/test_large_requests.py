"""Large requests of clients: they hold up no other user, and so many of one address are taken at once.

The class of fault: work that takes a thread until it is done, and bodies that fill the memory, slowly sent.
"""

import http.client
import json
import select
import socket

import pytest

from harness.client import SECONDS_MAX, timeline, unique
from harness.server import Server

# As many as a room may be created with.
INITIAL_STATE = 1_000
# More than the system keeps of what the server does not read; a body may have 8 MiB.
LARGE_BYTES = 6 * 1024 * 1024
# A little more than makes a body a large one, which is 256 KiB.
SMALLER_BYTES = 300 * 1024
# Large bodies of one address at once, by the default budget of memory.
PLACES = 2


class Asked:
    """A request on a connection of its own, whose answer is looked for later."""

    def __init__(self, client, method, path, body, held_back=0, address="127.0.0.1"):
        """The last bytes of the body are sent by `finish`. Returns once the system has taken all others."""
        host, port = client.base_url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.settimeout(SECONDS_MAX)
        # What is sent is with the server soon, not with the sender's system.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self.socket.bind((address, 0))
        self.socket.connect((host, int(port)))
        head = (
            f"{method} /_matrix/client/v3/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sent = len(body) - held_back
        self.rest = body[sent:]
        self.socket.sendall(head.encode() + body[:sent])

    def is_answered(self):
        return bool(select.select([self.socket], [], [], 0)[0])

    def answer(self):
        """The status and the content of the answer, which is waited for."""
        with http.client.HTTPResponse(self.socket) as response:
            response.begin()
            return response.status, json.loads(response.read())

    def finish(self):
        self.socket.sendall(self.rest)
        return self.answer()

    def close(self):
        self.socket.close()


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data") as server:
        yield server
        assert server.stop() == 0, server.log_tail()


@pytest.fixture
def base_url(server):
    """Users are of a server of the test's own."""
    return server.base_url


@pytest.fixture
def asked():
    """Makes requests, whose connections end with the test."""
    made = []

    def ask(*arguments, **more):
        made.append(Asked(*arguments, **more))
        return made[-1]

    yield ask
    for request in made:
        request.close()


def test_who_creates_large_rooms_holds_up_nobody(alice, bob, asked):
    room = bob.create_room()
    bob.sync()
    state = [{"type": "org.example.entry", "state_key": str(key), "content": {"key": key}} for key in range(INITIAL_STATE)]
    body = json.dumps({"initial_state": state}).encode()
    creations = [asked(alice, "POST", "createRoom", body) for _ in range(10)]
    # All of them are with the server by now. If each of these requests waited for one of them, all would be over.
    for number in range(len(creations) // 2):
        said = bob.send(room, f"meanwhile {number}")
        assert [event["event_id"] for event in timeline(bob.sync(), room)] == [said]
        assert bob.state(room, "m.room.create")
    assert not all(creation.is_answered() for creation in creations)
    answers = [creation.answer() for creation in creations]
    assert [status for status, _ in answers] == [200] * len(creations)
    for _, answer in answers:
        assert alice.state(answer["room_id"], "org.example.entry", str(INITIAL_STATE - 1)) == {"key": INITIAL_STATE - 1}


@pytest.mark.parametrize("end", ["is answered", "goes away"])
def test_large_bodies_of_an_address_are_taken_when_others_end(alice, bob, asked, end):
    question = b'{"device_keys":{}}'
    held = [asked(alice, "POST", "keys/query", question.ljust(LARGE_BYTES), held_back=1) for _ in range(PLACES)]
    # Large enough to wait, and small enough to be sent although they do.
    body = question.ljust(SMALLER_BYTES)
    waiting = [asked(user, "POST", "keys/query", body) for user in (alice, bob) for _ in range(2)]
    # Others do not wait, nor do smaller requests of the same address.
    for _ in range(5):
        assert asked(bob, "POST", "keys/query", body, address="127.0.0.2").answer()[0] == 200
        alice.put("user/{userId}/account_data/{type}", alice.user_id, "org.example.a", json={"a": "b" * 200_000})
    assert not any(request.is_answered() for request in [*held, *waiting])
    if end == "is answered":
        assert held[0].finish()[0] == 200
    else:
        held[0].close()
    assert [request.answer()[0] for request in waiting] == [200] * len(waiting)
    # The other one is there as it was.
    assert not held[1].is_answered()
    assert held[1].finish()[0] == 200


def test_bodies_that_are_answered_or_refused_keep_no_place(alice, asked):
    wrong = b"{".ljust(SMALLER_BYTES)
    for _ in range(PLACES + 1):
        assert asked(alice, "POST", "keys/query", wrong).answer()[0] == 400
    body = b'{"messages":{}}'.ljust(SMALLER_BYTES)
    for _ in range(PLACES + 1):
        path = f"sendToDevice/org.example.a/{unique('txn')}"
        assert asked(alice, "PUT", path, body).answer()[0] == 200
