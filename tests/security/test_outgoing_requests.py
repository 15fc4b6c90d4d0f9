"""Requests that others make this server send: they do not reach what lies behind the firewall.

The classes of fault: forged requests through well-known files, redirects, services and names that resolve to private
addresses; answers without end, compressed ones, and such as come byte by byte.
"""

import concurrent.futures
import gzip
import itertools
import socket
import threading
import time

import pytest
import requests

from harness.client import Client
from harness.metrics import Counting, memory_of
from harness.peer import Peer
from harness.server import Server, free_port, sound

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
def metrics():
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def server(network, tmp_path_factory, metrics):
    """A server that keeps to the public internet; only what its operator has named is on this machine."""
    folder = tmp_path_factory.mktemp("outgoing") / "data"
    with Server(folder, *network.options, "--metrics-listen", metrics) as server:
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


PRIVATE = (
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "0.0.0.0",
    "::1", "::ffff:127.0.0.1", "fe80::1", "fd00::1", "64:ff9b::7f00:1",
)


def test_names_that_resolve_to_private_addresses(server, metrics, network, tap):
    """Nobody is asked at any of them, also where nobody listens: each is refused, and not tried in vain."""
    refused = Counting(metrics, "warren_connections_refused_total")
    refused.news()
    for number, address in enumerate(PRIVATE):
        network.names.addresses[f"private{number}.test"] = [address]
        make_ask(server, f"private{number}.test:{tap.port}")
        assert refused.news() == {("private_address",): 1}, address
    make_ask(server, f"localhost:{tap.port}")
    assert refused.news() == {("private_address",): 1}
    assert tap.connections == 0


def test_a_name_that_leads_inwards_beside_or_after_what_is_public(server, network, tap):
    """It is looked up once, and each of its addresses is judged: not one that another look-up would give."""
    # The registries have given out nothing of 2d00::/8.
    public, inwards = ["2d00::1"], ["127.0.0.1"]
    # The first question for each of the two kinds of address is answered with the public one.
    turns = itertools.chain([public] * 2, itertools.repeat(inwards))
    network.names.addresses["rebinding.test"] = lambda: next(turns)
    network.names.addresses["beside.test"] = [*public, *inwards]
    for name in ("rebinding.test", "beside.test"):
        make_ask(server, f"{name}:{tap.port}")
        assert name in [asked for asked, _ in network.names.asked]
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
    with network.server(tmp_path) as server:
        assert peer.send(server, "GET", LIST)[0] == 200
    peer.close()


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


def multipart(headers, content=b"inside"):
    """The answer to a request for a file; its second part is the file, or says where that is."""
    parts = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\n" + headers + b"\r\n\r\n" + content + b"\r\n--x--\r\n"
    return 200, parts, {"Content-Type": "multipart/mixed; boundary=x"}


def test_a_file_that_is_said_to_lie_inwards(server, network, tap):
    network.files_of("default.test")[FILE] = lambda _: (404, {})
    network.names.addresses["inwards.test"] = ["127.0.0.1"]
    alice = Client(server.base_url).register("alice")
    hosts = ("127.0.0.1", "inwards.test", "[::1]", "localhost", "2130706433", "127.1")
    for number, host in enumerate(hosts):
        for scheme in ("http", "https"):
            name = f"{scheme}{number}"
            location = f"Location: {scheme}://{host}:{tap.port}/secret".encode()
            path = f"/_matrix/federation/v1/media/download/{name}"
            network.default_port.answers[path] = lambda _, location=location: multipart(location)
            answer = alice.send_raw("GET", f"/_matrix/client/v1/media/download/default.test/{name}")
            assert answer.status_code in (404, 502), (location, answer.text)
            assert network.default_port.asked(path), "the file was asked for"
    assert tap.connections == 0


@pytest.fixture(scope="module")
def open_server(network, tmp_path_factory):
    """A server to which peers on this machine may do what they can."""
    with sound(network.server(tmp_path_factory.mktemp("bombs"), "--upload-limit-mib", "1")) as server:
        yield server


# What each question may be answered at most is 32 MiB or less, which are held twice while they grow.
BOMB_BYTES = 192 * 1024 * 1024


def test_answers_that_are_too_large(open_server, network):
    """They are read up to their limit, and who asked is told that the other server is of no help."""
    peer, healthy = network.peer(), network.peer()
    alice = Client(open_server.base_url).register("alice")
    user, room = f"@bob:{peer.name}", f"!room:{peer.name}"
    piece = b"a" * (1024 * 1024)

    def bomb():
        """It does not say how long it is."""
        yield b'{"displayname":"'
        yield from itertools.repeat(piece, BOMB_BYTES // len(piece))
        yield b'"}'

    questions = [
        ("GET", f"/_matrix/client/v3/profile/{user}"),
        ("GET", f"/_matrix/client/v3/directory/room/%23x:{peer.name}"),
        ("GET", f"/_matrix/client/v3/publicRooms?server={peer.name}"),
        ("POST", f"/_matrix/client/v3/join/{room}?via={peer.name}"),
        ("GET", f"/_matrix/client/v1/media/download/{peer.name}/x"),
    ]
    assert healthy.send(open_server, "GET", LIST)[0] == 200
    before = memory_of(open_server)
    keys = peer.answers["/_matrix/key/v2/server"]
    peer.answer_to = lambda request: keys(request) if "/key/" in request.target else (200, bomb())
    for method, target in questions:
        answer = alice.send_raw(method, target, json={} if method == "POST" else None)
        assert answer.status_code in (404, 413, 502), (target, answer.text)
    assert memory_of(open_server) - before < BOMB_BYTES * 2 // 3
    assert healthy.send(open_server, "GET", LIST)[0] == 200


def test_answers_in_which_much_stands_in_few_bytes(open_server, network):
    """What would take a hundred times its size, were it made into values, is refused by its size or never made into any."""
    peer = network.peer()
    alice = Client(open_server.base_url).register("alice")
    user, room = f"@bob:{peer.name}", f"!room:{peer.name}"
    many = b"[" + b'{"":0},' * 1_500_000 + b"0]"
    answer = b'{"event":{"a":%s},"chunk":%s,"servers":%s,"device_keys":{"%s":{"a":%s},"@other:x":%s},"a":%s}'
    answer = answer % (many, many, many, user.encode(), many, many, many)
    small = b'{"device_keys":{"%s":{},"a":[%s 0]},"chunk":[%s 0]}' % (user.encode(), b'{"":0},' * 50_000, b'{"":0},' * 50_000)
    questions = [
        ("GET", f"/_matrix/client/v3/profile/{user}", None),
        ("GET", f"/_matrix/client/v3/directory/room/%23x:{peer.name}", None),
        ("GET", f"/_matrix/client/v3/publicRooms?server={peer.name}", None),
        ("POST", f"/_matrix/client/v3/join/{room}?via={peer.name}", {}),
        ("POST", f"/_matrix/client/v3/knock/{room}?via={peer.name}", {}),
        ("POST", "/_matrix/client/v3/keys/query", {"device_keys": {user: []}}),
    ]
    assert peer.send(open_server, "GET", LIST)[0] == 200
    keys = peer.answers["/_matrix/key/v2/server"]
    before = memory_of(open_server)
    for content in (answer, small):
        peer.answer_to = lambda request, content=content: keys(request) if "/key/" in request.target else (200, content)
        for method, target, body in questions:
            asked_before = len(peer.requests)
            alice.send_raw(method, target, json=body)
            assert len(peer.requests) > asked_before, f"the other server was asked for {target}"
    assert memory_of(open_server) - before < len(answer)


def test_answers_that_are_compressed_are_not_unpacked(open_server, network):
    """No compression is asked for, so that nothing small becomes large here."""
    peer = network.peer()
    alice = Client(open_server.base_url).register("alice")
    small = gzip.compress(b'{"displayname":"' + b"a" * BOMB_BYTES + b'"}')
    before = memory_of(open_server)
    for coding in ("gzip", "deflate", "br", "zstd"):
        headers = {"Content-Encoding": coding}
        peer.answers["/_matrix/federation/v1/query/profile"] = lambda _, headers=headers: (200, small, headers)
        answer = alice.send_raw("GET", f"/_matrix/client/v3/profile/@bob:{peer.name}")
        assert answer.status_code == 502, answer.text
    asked = peer.asked("/_matrix/federation/v1/query/profile")
    assert len(asked) == 4 and all(request.headers["Accept-Encoding"] in (None, "identity") for request in asked)
    assert memory_of(open_server) - before < BOMB_BYTES // 2


def test_files_that_are_larger_than_they_may_be(open_server, network):
    peer = network.peer()
    alice = Client(open_server.base_url).register("alice")
    path = "/_matrix/federation/v1/media/download/large"
    peer.answers[path] = lambda _: multipart(b"Content-Type: image/png", b"x" * (3 << 20))
    before = open_server.disk()
    answer = alice.send_raw("GET", f"/_matrix/client/v1/media/download/{peer.name}/large")
    assert answer.status_code in (413, 502), answer.status_code
    assert open_server.disk() - before < 1 << 20, "nothing of it is left"


def test_answers_that_trickle(open_server, network):
    """They cost who asked their time, and nobody else theirs."""
    slow, healthy = network.peer(), network.peer()
    alice = Client(open_server.base_url).register("alice")
    assert slow.send(open_server, "GET", LIST)[0] == 200
    slow.trickle = True
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        target = f"/_matrix/client/v3/profile/@bob:{slow.name}"
        waiting = [pool.submit(Client(open_server.base_url, alice.user_id, alice.token).send_raw, "GET", target, timeout=5)
                   for _ in range(8)]
        begin = time.monotonic()
        for _ in range(5):
            assert healthy.send(open_server, "GET", LIST)[0] == 200
            assert alice.get("account/whoami")["user_id"] == alice.user_id
        assert time.monotonic() - begin < 4
        for answer in waiting:
            with pytest.raises(requests.RequestException):
                answer.result()
    slow.closing.set()
