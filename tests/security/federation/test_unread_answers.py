"""Answers that nobody reads: they end, hold little until then, and keep no other server from its own.

The class of fault: what is to be sent to somebody who does not take it is held for as long as they like.
"""

import contextlib
import http.client
import json
import socket
import ssl
import types

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from harness.client import Client
from harness.clock import Clock
from harness.events import id_of
from harness.federated import Warren
from harness.metrics import Counting, figure, memory_of
from harness.participant import Participant, path
from harness.peer import authorization, canonical
from harness.server import free_port, sound
from harness.waiting import readable, until

MIB = 1 << 20
# Connections that the server ended, by why.
ENDED = "warren_connections_ended_total"
# Users of the hostile server, and what each says of itself: more together than there is room for on the way to a peer.
USERS, TEXT_BYTES = 220, 60_000
STATE_BYTES = USERS * TEXT_BYTES
# Requests whose answers nobody reads; answers that one server has at once, and what all of them may take.
UNREAD, AT_ONCE, MEMORY_BYTES_MAX = 40, 4, 48 * MIB
# What passes of time at each look, and while a slow peer takes a mebibyte: several times that in less than it may take nothing.
STEP_SECONDS, SLOW_SECONDS, UNREAD_SECONDS = 5, 20, 90
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def large(network, tmp_path_factory):
    """A server with a large room, in which a hostile server is; and how time passes there."""
    folder = tmp_path_factory.mktemp("unread")
    clock, metrics = Clock(folder), f"http://127.0.0.1:{free_port()}"
    server = Warren(folder / "data", network.authority, *network.options, "--metrics-listen", metrics)
    server.environment = clock.environment
    with sound(server):
        nobody, hostile = Client(server.base_url), network.peer(kind=Participant)
        room = nobody.register("alice").create_room(preset="public_chat", room_version="11")
        copy = hostile.join(server, room)
        for first in range(0, USERS, 50):
            events = [say_much(hostile, copy, number) for number in range(first, min(first + 50, USERS))]
            assert hostile.transact(server, events) == {id_of(event): {} for event in events}
        last = hostile.next(copy, "m.room.message", {"msgtype": "m.text", "body": "last"})
        assert hostile.transact(server, [last]) == {id_of(last): {}}
        yield types.SimpleNamespace(
            server=server, clock=clock, metrics=metrics, nobody=nobody, hostile=hostile, room=room, last=id_of(last)
        )


def say_much(peer, copy, number):
    user, content = peer.user(f"user{number}"), {"membership": "join", "org.example.much": "~" * TEXT_BYTES}
    return peer.next(copy, "m.room.member", content, sender=user, state_key=user)


def state(large):
    """A request for the state of the room: method, target, content."""
    return "GET", path("v1/state/{}?event_id={}", large.room, large.last), None


def state_ids(large):
    return "GET", path("v1/state_ids/{}?event_id={}", large.room, large.last), None


def send_join(large):
    """A request of a user to come in, which is answered with the state of the room."""
    event = large.hostile.make_join(large.server, large.room, large.hostile.user("late"))
    return "PUT", path("v2/send_join/{}/{}", large.room, id_of(event)), event


def header(large, method, target, content):
    return authorization(method, target, large.hostile.name, large.server.name, large.hostile.key, content)


def connected(port):
    """A connection on which little is on its way."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(SECONDS_MAX)
    connection.connect(("127.0.0.1", port))
    return connection


def ask(large, connection, question):
    method, target, content = question
    body = b"" if content is None else canonical(content)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {header(large, *question)}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def passes(large, seconds):
    large.clock.passes(seconds)
    # Whoever sleeps is woken.
    large.nobody.get("/_matrix/client/versions")


def passes_until(large, condition):
    def look():
        passes(large, STEP_SECONDS)
        return condition()

    return until(look)


def until_alone(large):
    """Lets time pass until there are no connections to the server, but for that which wakes it and that which asks for the figure."""
    passes_until(large, lambda: figure(large.metrics, "warren_connections_open") <= 2)


def rest_of(connection):
    """All that still comes."""
    came = []
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while data := connection.recv(MIB):
            came.append(data)
    return b"".join(came)


def users_told(large, events):
    told = {event["state_key"] for event in events if event["type"] == "m.room.member"}
    return told >= {large.hostile.user(f"user{number}") for number in range(USERS)}


# Who has been let in waits two minutes to be told the state, in which some connections end; others wait half a minute.
@pytest.mark.parametrize(("question", "told_at_last"), [(state, AT_ONCE), (send_join, 2 * AT_ONCE)])
def test_what_one_server_does_not_read_takes_little_and_ends_and_holds_up_no_other(large, network, question, told_at_last):
    honest = network.peer(kind=Participant)
    honest.join(large.server, large.room)
    asked = question(large)
    until_alone(large)
    refusals, ended = Counting(large.metrics), Counting(large.metrics, ENDED)
    refusals.news()
    ended.news()
    before = memory_of(large.server)
    with contextlib.ExitStack() as stack:
        unread = [stack.enter_context(connected(large.server.port)) for _ in range(UNREAD)]
        for connection in unread:
            ask(large, connection, asked)
        until(lambda: len(readable(unread, 0)) >= AT_ONCE)
        # Others are answered meanwhile, and so is the server itself, about anything else.
        assert users_told(large, honest.ask(large.server, *state(large))["pdus"])
        assert large.hostile.ask(large.server, "GET", path("v1/event/{}", large.last))["pdus"]
        assert len(readable(unread, 0)) == AT_ONCE, "the others wait their turn"
        assert memory_of(large.server) - before < MEMORY_BYTES_MAX
        until_alone(large)
        told = [rest_of(connection) for connection in unread]
    answered = [data for data in told if data.startswith(b"HTTP/1.1 200 ")]
    assert len(answered) == told_at_last and all(len(data) < STATE_BYTES for data in answered)
    refused = [data for data in told if data.startswith(b"HTTP/1.1 429 ")]
    assert len(refused) == UNREAD - told_at_last and all(b"M_LIMIT_EXCEEDED" in data for data in refused)
    assert all(b"\r\nretry-after: " in data for data in refused)
    assert refusals.news() == {(question.__name__, "M_LIMIT_EXCEEDED"): len(refused)}
    assert ended.news()["unread",] == told_at_last
    # The places are free again.
    assert users_told(large, large.hostile.ask(large.server, *state(large))["pdus"])


def test_a_connection_that_nobody_uses_ends_and_is_counted(large):
    until_alone(large)
    ended = Counting(large.metrics, ENDED)
    ended.news()
    with connected(large.server.port) as connection:
        passes_until(large, lambda: readable([connection], 0))
        assert rest_of(connection) == b""
    assert ended.news()["unused",] >= 1


def test_who_reads_nothing_over_tls(large, network):
    until_alone(large)
    trust = ssl.create_default_context(cafile=network.authority.path)
    with trust.wrap_socket(connected(large.server.federation_port), server_hostname="localhost") as connection:
        ask(large, connection, state(large))
        begun = connection.recv(12)
        assert begun == b"HTTP/1.1 200"
        until_alone(large)
        assert len(rest_of(connection)) < STATE_BYTES


def test_who_makes_no_room_for_an_answer_over_http_2(large):
    """It reads what comes, and answers pings, but never lets more of the answer be sent."""
    until_alone(large)
    method, target, _ = asked = state(large)
    with connected(large.server.port) as connection:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        peer.initiate_connection()
        stream = peer.get_next_available_stream_id()
        names = {":method": method, ":path": target, ":scheme": "http", ":authority": "x", "authorization": header(large, *asked)}
        peer.send_headers(stream, list(names.items()), end_stream=True)
        connection.sendall(peer.data_to_send())
        came, is_told_to_go = [], False

        def is_ended():
            nonlocal is_told_to_go
            if readable([connection], 0):
                if not (data := connection.recv(MIB)):
                    return True
                try:
                    events = [] if is_told_to_go else peer.receive_data(data)
                except h2.exceptions.ProtocolError:
                    # It was told to go, and pinged behind that.
                    events, is_told_to_go = [], True
                came.extend(event for event in events if isinstance(event, h2.events.DataReceived))
                is_told_to_go |= any(isinstance(event, h2.events.ConnectionTerminated) for event in events)
                if not is_told_to_go:
                    connection.sendall(peer.data_to_send())
            return False

        until(lambda: is_ended() or came)
        passes_until(large, is_ended)
    assert 0 < sum(len(event.data) for event in came) < MIB


def test_who_reads_slowly_gets_all_of_an_answer(large):
    method, target, content = asked = state(large)
    connection = http.client.HTTPConnection("127.0.0.1", large.server.port)
    connection.sock = connected(large.server.port)
    with contextlib.closing(connection):
        connection.request(method, target, content, {"Authorization": header(large, *asked)})
        response, pieces = connection.getresponse(), []
        while piece := response.read(MIB):
            pieces.append(piece)
            passes(large, SLOW_SECONDS)
    assert len(pieces) * SLOW_SECONDS > 2 * UNREAD_SECONDS
    events = json.loads(b"".join(pieces))["pdus"]
    assert users_told(large, events) and len({id_of(event) for event in events}) == len(events)


def test_ids_of_a_state_are_all_told(large):
    """They come in as many pieces as the events."""
    told = large.hostile.ask(large.server, *state(large))["pdus"]
    ids = large.hostile.ask(large.server, *state_ids(large))["pdu_ids"]
    assert sorted(ids) == sorted(id_of(event) for event in told)
