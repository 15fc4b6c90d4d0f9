"""Requests between servers that are made to deceive or to cost: they are refused, and others are served meanwhile.

The class of fault: a missing or late check of signatures, leaked keys, a notary that amplifies, an origin in whose name
others make this server work; memory and places that strangers can take.
"""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest
import requests

from harness.client import Client, unique
from harness.metrics import REFUSALS, memory_of, told
from harness.participant import Participant
from harness.peer import Key, authorization
from harness.server import free_port
from harness.waiting import until

SEND = "/_matrix/federation/v1/send"
LIST = "/_matrix/federation/v1/publicRooms"
KEYS = "/_matrix/key/v2/server"
QUERY = "/_matrix/key/v2/query"


@pytest.fixture(scope="module")
def server(network, tmp_path_factory):
    with network.server(tmp_path_factory.mktemp("requests")) as server:
        yield server


def test_a_server_is_not_asked_more_often_because_others_name_it(server, network):
    """Whoever sends bad requests in another server's name makes this one ask there once in a while, and no more."""
    victim = network.peer()
    for number in range(40):
        header = authorization("GET", LIST, victim.name, server.name, Key(f"k{number}"))
        status, body = victim.send(server, "GET", LIST, headers=[header])
        assert (status, body["errcode"]) == (401, "M_UNAUTHORIZED")
        requests.get(f"{server.base_url}{QUERY}/{victim.name}/ed25519:k{number}", timeout=60)
    assert len(victim.asked(KEYS)) == 1


def test_one_query_makes_a_notary_ask_few(server, network):
    peers = [network.peer() for _ in range(30)]
    body = {"server_keys": {peer.name: {} for peer in peers}}
    told = requests.post(server.base_url + QUERY, json=body, timeout=60).json()["server_keys"]
    assert len(told) == 20 == sum(len(peer.asked(KEYS)) for peer in peers)
    body = {"server_keys": {f"n{number}.test": {} for number in range(501)}}
    response = requests.post(server.base_url + QUERY, json=body, timeout=60)
    assert (response.status_code, response.json()["errcode"]) == (413, "M_TOO_LARGE")


def test_a_key_id_does_not_come_to_stand_for_another_key(network, tmp_path):
    """Whoever takes a server over later cannot put another key in the place of one that events were signed with."""
    with network.server(tmp_path) as server:
        peer = network.peer()
        first = peer.key
        assert peer.send(server, "GET", LIST)[0] == 200
        peer.key = Key(first.id.removeprefix("ed25519:"))
        assert peer.send(server, "GET", LIST)[0] == 401
        assert peer.send(server, "GET", LIST, key=first)[0] == 200


def test_slow_and_endless_answers(server, network):
    """A peer that trickles or never ends costs a fetch its time, not the server's memory or other requests."""
    endless, trickling, healthy = network.peer(), network.peer(), network.peer()
    endless.answers[KEYS] = lambda _: (200, b" " * 5_000_000)
    trickling.trickle = True
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        refused = [pool.submit(peer.send, server, "GET", LIST) for peer in (endless, trickling)]
        assert healthy.send(server, "GET", LIST)[0] == 200
        for response in refused:
            # The specification's patience of who sends a request is a minute.
            assert response.result(timeout=60)[0] == 401


def test_who_sends_wrong_signatures_is_not_listened_to_for_long(network, tmp_path):
    """Each costs the reading and checking of a body; those that are right cost nothing of this."""
    with network.server(tmp_path, "--rate-limits", "on") as server:
        peer = network.peer()
        for _ in range(400):
            assert peer.send(server, "GET", LIST)[0] == 200
        wrong = [peer.send(server, "GET", LIST, key=Key())[0] for _ in range(400)]
        assert wrong.count(401) >= 300 and wrong[-1] == 429, wrong


# A body of a transaction may have 12 MiB.
LARGE_BYTES = 11 * 1024 * 1024
# Far below any timeout of the server's.
SECONDS_MAX = 8


@pytest.mark.parametrize("value", [b'{"":0}', b"0", b'""', b"[[]]", b'{"b":0,"a":0}', b"1e15"])
def test_a_body_takes_a_few_times_its_size(network, tmp_path, value):
    """It is read before it is known whose it is, so that what stands in it must not count."""
    with network.server(tmp_path) as server:
        peer, target = network.peer(), f"{SEND}/{unique('txn')}"
        assert peer.send(server, "GET", LIST)[0] == 200
        body = b'{"edus":[],"pdus":[],"x":[' + (value + b",") * (LARGE_BYTES // (len(value) + 1)) + b"0]}"
        header = authorization("PUT", target, peer.name, server.name, peer.key, {})
        before = memory_of(server)
        status, _, _ = peer.send_raw(server, "PUT", target, body=body, headers=[header])
        assert status == 401
        assert memory_of(server) - before < 8 * LARGE_BYTES


def unfinished(server, peer, address):
    """A request with a large body, as much of it as the server takes, but for its end; from another address."""
    target = f"{SEND}/{unique('txn')}"
    header = authorization("PUT", target, peer.name, server.name, peer.key, {})
    head = f"PUT {target} HTTP/1.1\r\nHost: {server.name}\r\nAuthorization: {header}\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), source_address=(address, 0))

    def send():
        # The test may end before the server has taken it.
        with contextlib.suppress(OSError):
            connection.sendall(head.encode() + b" " * (LARGE_BYTES - 1))

    threading.Thread(target=send, daemon=True).start()
    return connection


def test_large_bodies_wait_for_each_other(network, tmp_path):
    """Whoever sends many at once, in whosever name, fills neither the memory nor the places of others, and it is counted."""
    address = f"http://127.0.0.1:{free_port()}"
    with network.server(tmp_path, "--metrics-listen", address) as server:
        peer, other = network.peer(), network.peer()
        other.address = "127.0.0.2"
        assert peer.send(server, "GET", LIST)[0] == other.send(server, "GET", LIST)[0] == 200
        before = memory_of(server)
        connections = [unfinished(server, peer, "127.0.0.3") for _ in range(30)]
        # Two are there as far as they were sent.
        until(lambda: memory_of(server) - before > 2 * LARGE_BYTES)
        begin = time.monotonic()
        content = {"origin": other.name, "origin_server_ts": 1, "pdus": [], "edus": [], "x": "x" * (LARGE_BYTES // 2)}
        status, _, _ = other.send_raw(server, "PUT", f"{SEND}/{unique('txn')}", content)
        assert (status, peer.send(server, "GET", LIST)[0]) == (200, 200)
        assert time.monotonic() - begin < SECONDS_MAX
        assert memory_of(server) - before < 10 * LARGE_BYTES
        # Those for which no place became free are refused.
        until(lambda: told(address, REFUSALS).get(("send", "busy"), 0) >= len(connections) // 2)
        for connection in connections:
            connection.close()


class From(requests.adapters.HTTPAdapter):
    """Sends requests from another address."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **options)


class Mute:
    """Takes connections and says nothing, under any number of names, until it is closed."""

    def __init__(self, network):
        self.network, self.connections = network, []
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=200)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self.socket.accept()[0])

    def name(self):
        host = f"{unique('mute')}.test"
        self.network.names.addresses[host] = ["127.0.0.1"]
        return f"{host}:{self.socket.getsockname()[1]}"

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.connections:
            connection.close()


# More than servers whose keys are fetched at once.
NAMES = 70


def test_silent_servers_keep_nobodys_keys_from_being_fetched(network, tmp_path):
    """Whoever names any number of them, in requests and queries, has others wait neither as a server in a room with this one,
    nor as one that nobody knows."""
    server, mute = network.server(tmp_path), Mute(network)
    known, stranger, notary = network.peer(kind=Participant), network.peer(), network.peer()
    with server:
        room = Client(server.base_url).register("alice").create_room(preset="public_chat")
        known.join(server, room)
        assert server.stop() == 0
    # It is not known any more when its keys were fetched last, and it has another.
    known.key, known.address, stranger.address = Key("p2"), "127.0.0.2", "127.0.0.2"
    with server, concurrent.futures.ThreadPoolExecutor(2 * NAMES) as pool:
        hostile = network.peer()
        for _ in range(NAMES):
            header = authorization("GET", LIST, mute.name(), server.name, Key())
            pool.submit(hostile.send_raw, server, "GET", LIST, headers=[header])
        for _ in range(4):
            body = {"server_keys": {mute.name(): {} for _ in range(20)}}
            pool.submit(requests.post, server.base_url + QUERY, json=body, timeout=60)
        # Three of each kind have a place.
        until(lambda: len(mute.connections) >= 6)
        begin = time.monotonic()
        assert known.send(server, "GET", LIST)[0] == 200
        assert stranger.send(server, "GET", LIST)[0] == 200
        told = requests.Session()
        told.mount("http://", From("127.0.0.2"))
        keys = told.get(f"{server.base_url}{QUERY}/{notary.name}", timeout=60).json()["server_keys"]
        assert [row["server_name"] for row in keys] == [notary.name]
        assert time.monotonic() - begin < SECONDS_MAX
        mute.close()
