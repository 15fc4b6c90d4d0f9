"""Requests that others make this server send: they do not reach what lies behind the firewall.

The class of fault: forged requests through well-known files, redirects, services and names that resolve to private
addresses.
"""

import socket
import threading

import pytest
import requests

from harness.client import Client
from harness.peer import Peer
from harness.server import Server

LIST = "/_matrix/federation/v1/publicRooms"
QUERY = "/_matrix/key/v2/query"
FILE = "/.well-known/matrix/server"


class Tap:
    """Counts who connects to a port of this machine: a service that is nobody's business."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


@pytest.fixture(scope="module")
def server(network, tmp_path_factory):
    """A server that keeps to the public internet; only what its operator has named is on this machine."""
    with Server(tmp_path_factory.mktemp("outgoing") / "data", *network.options) as server:
        yield server


@pytest.fixture
def tap():
    tap = Tap()
    yield tap
    tap.socket.close()


def make_ask(server, name):
    """Makes the server ask one of that name for its keys."""
    told = requests.get(f"{server.base_url}{QUERY}/{name}", timeout=60).json()
    assert told == {"server_keys": []}, told


def test_addresses(server, tap):
    for address in ("127.0.0.1", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"):
        make_ask(server, f"{address}:{tap.port}")
    assert tap.connections == 0


def test_names_that_resolve_to_private_addresses(server, network, tap):
    for number, address in enumerate(("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")):
        network.names.addresses[f"private{number}.test"] = [address]
        make_ask(server, f"private{number}.test:{tap.port}")
    make_ask(server, f"localhost:{tap.port}")
    assert tap.connections == 0


def test_a_file_that_delegates_inwards(server, network, tap):
    network.names.addresses["inwards.test"] = ["127.0.0.1"]
    for target in (f"127.0.0.1:{tap.port}", f"inwards.test:{tap.port}"):
        peer = network.behind_file(lambda _, target=target: {"m.server": target})
        make_ask(server, peer.name)
        assert network.files.requests[-1].headers["Host"] == peer.name, "the file was asked for"
    assert tap.connections == 0


def test_a_redirect_that_leads_inwards(server, network, tap):
    network.names.addresses["inwards.test"] = ["127.0.0.1"]
    for target in (f"https://127.0.0.1:{tap.port}/", f"https://inwards.test:{tap.port}/", f"http://127.0.0.1:{tap.port}/"):
        peer = network.behind_file(lambda _, target=target: (302, b"", {"Location": target}))
        make_ask(server, peer.name)
    assert tap.connections == 0


def test_a_service_that_leads_inwards(server, network, tap):
    network.names.addresses["inwards.test"] = ["127.0.0.1"]
    for kind in ("_matrix-fed", "_matrix"):
        peer = network.behind_file(lambda _: (404, {}))
        network.names.services[f"{kind}._tcp.{peer.name}"] = [(1, 1, tap.port, "inwards.test")]
        make_ask(server, peer.name)
    assert tap.connections == 0


def test_what_the_operator_has_named_is_asked(server, network):
    network.files_of("default.test")[FILE] = lambda _: (404, {})
    (keys,) = requests.get(f"{server.base_url}{QUERY}/default.test", timeout=60).json()["server_keys"]
    assert keys["server_name"] == "default.test"


def test_an_operator_may_allow_private_addresses(network, tmp_path):
    peer = Peer("127.0.0.1", network.authority)
    with Server(tmp_path / "data", "--allow-private-addresses", "on", *network.options) as server:
        assert peer.send(server, "GET", LIST)[0] == 200
    peer.close()


def test_a_file_that_never_ends(server, network):
    """The file of a hostile host is read up to its limit, and the search goes on without it."""
    peer = network.behind_file(lambda _: (200, b'{"m.server":"' + b"a" * 3_000_000 + b'"}'))
    make_ask(server, peer.name)


def test_media_that_is_said_to_lie_inwards(server, network, tap):
    """A server names an address of this one's network as the place of a file."""
    peer, alice = network.default_port, Client(server.base_url).register("alice")
    network.files_of("default.test")[FILE] = lambda _: (404, {})
    network.names.addresses["inwards.test"] = ["127.0.0.1"]
    addresses = [f"https://127.0.0.1:{tap.port}/x", f"https://[::1]:{tap.port}/x", f"http://127.0.0.1:{tap.port}/x"]
    # Nor does what the operator says of servers open a way.
    addresses += [f"https://inwards.test:{tap.port}/x", "https://default.test:8448/x", f"file://127.0.0.1:{tap.port}/x"]
    for number, address in enumerate(addresses):
        body = f"--b\r\n\r\n{{}}\r\n--b\r\nLocation: {address}\r\n\r\n\r\n--b--\r\n".encode()
        headers = {"Content-Type": "multipart/mixed; boundary=b"}
        asked = f"/_matrix/federation/v1/media/download/inwards{number}"
        peer.answers[asked] = lambda _, body=body, headers=headers: (200, body, headers)
        response = alice.send_raw("GET", f"/_matrix/client/v1/media/download/default.test/inwards{number}")
        assert response.status_code in (404, 502), address
        assert len(peer.asked(asked)) == 1
    assert tap.connections == 0 and peer.asked("/x") == []
