"""Where servers are found (server-server API, "Resolving server names").

A peer sends a request, and the server must find it to fetch its key: what is answered tells whether it did.
"""

import concurrent.futures
import errno
import itertools
import random
import socket
import threading
import time

import pytest

from harness.certificates import Authority
from harness.client import Client
from harness.clock import HOUR, Clock
from harness.names import A, AAAA, SRV
from harness.peer import Listener, Peer, literal
from harness.server import Server
from harness.waiting import until

LIST = "/_matrix/federation/v1/publicRooms"
KEYS = "/_matrix/key/v2/server"
FILE = "/.well-known/matrix/server"
# Less than who asks for something has patience.
SECONDS_MAX = 20
# What a test may take between two looks at the time.
SLACK_SECONDS = 100
# Where a server is that names no port.
PORT_DEFAULT = 8448


def found(server, peer):
    return peer.send(server, "GET", LIST)[0] == 200


def assert_found(server, peer, host, name):
    """The peer is found, and asked under that `Host` and that name in TLS."""
    assert found(server, peer)
    (request,) = peer.asked(KEYS)
    assert (request.headers["Host"], peer.names[-1]) == (host, name)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address(server, network, address):
    peer = Peer(address, network.authority, address=(address, free(address, 0)))
    assert_found(server, peer, peer.name, None)
    peer.close()


def free(address, port=PORT_DEFAULT):
    """Waits until nobody listens at a port of this machine, as another run of these tests may for a while."""
    def is_free():
        try:
            socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
        except OSError as error:
            assert error.errno == errno.EADDRINUSE, f"these tests need the address {address}, which is not here: {error}"
            return False
        return True

    until(is_free)
    return port


# All of 127.0.0.0/8 is this machine, and one that no other run of these tests uses is soon found.
ADDRESSES = ["127.{}.{}.{}".format(*(random.randint(1, 254) for _ in range(3))), "::1"]


@pytest.mark.parametrize("address", ADDRESSES, ids=["IPv4", "IPv6"])
def test_an_address_without_a_port(server, network, address):
    peer = Peer(address, network.authority, name=literal(address), address=(address, free(address)))
    assert_found(server, peer, literal(address), None)
    peer.close()


@pytest.mark.parametrize("address", ADDRESSES, ids=["IPv4", "IPv6"])
def test_a_file_that_names_an_address_without_a_port(network, tmp_path, address):
    there = {"certified": address, "address": (address, free(address))}
    peer = network.behind_file(lambda _: {"m.server": literal(address)}, **there)
    # Of its own: another server may hold a connection to whoever was at this address before.
    with network.server(tmp_path) as server:
        assert_found(server, peer, literal(address), None)
    peer.close()


def test_an_explicit_port(server, network):
    host = "port.test"
    peer = network.peer(host)
    network.names.services[f"_matrix-fed._tcp.{host}"] = [(1, 1, 1, "nowhere.test")]
    assert_found(server, peer, f"{host}:{peer.port}", host)
    assert all(name == host for name, _ in network.names.asked if host in name), "no service is looked up"


# What a file says that leads whoever asks for it astray.
NOWHERE = {"m.server": "not-there.test:1"}


def test_who_names_a_port_is_asked_for_no_file(server, network):
    """Though there is one under that name, which leads elsewhere."""
    peer = network.behind_file(lambda _: NOWHERE)
    host = peer.name
    peer.name, network.names.addresses[host] = f"{host}:{peer.port}", ["127.0.0.1"]
    assert_found(server, peer, peer.name, host)
    assert host not in [request.headers["Host"] for request in network.files.asked(FILE)]
    # By the name alone it is asked for, and followed.
    peer.name = host
    assert not found(server, peer)
    assert host in [request.headers["Host"] for request in network.files.asked(FILE)]


@pytest.mark.parametrize("port", [0, PORT_DEFAULT], ids=["with a port", "without a port"])
def test_an_address_is_asked_for_no_file(network, tmp_path, port):
    address, files = ADDRESSES[0], Listener(network.authority.certificate(ADDRESSES[0]))
    port, is_named = free(address, port), port != PORT_DEFAULT
    files.answers[FILE] = lambda _: (200, NOWHERE)
    row = f"{address}:443=127.0.0.1:{files.port}"
    with network.server(tmp_path, "--federation-resolve", row) as server:
        name = None if is_named else address
        peer = Peer(address, network.authority, name=name, address=(address, port))
        assert_found(server, peer, peer.name, None)
        assert files.requests == []
        # Whoever is led to a file there finds it.
        network.names.addresses["led.test"] = ["127.0.0.1"]
        led = network.behind_file(lambda _: (302, b"", {"Location": f"https://{address}/file"}), "led.test")
        files.answers["/file"] = lambda _: (200, {"m.server": f"led.test:{led.port}"})
        assert_found(server, led, f"led.test:{led.port}", "led.test")
        assert [request.target for request in files.requests] == ["/file"]
    for listener in (peer, files):
        listener.close()


def test_a_file_that_names_host_and_port(server, network):
    network.names.addresses["delegated.test"] = ["127.0.0.1"]
    peer = network.behind_file(lambda peer: {"m.server": f"delegated.test:{peer.port}"}, "delegated.test")
    assert_found(server, peer, f"delegated.test:{peer.port}", "delegated.test")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_file_that_names_an_address(server, network, address):
    there = {"certified": address, "address": (address, free(address, 0))}
    peer = network.behind_file(lambda peer: {"m.server": f"{literal(address)}:{peer.port}"}, **there)
    assert_found(server, peer, f"{literal(address)}:{peer.port}", None)


def test_a_file_that_names_a_host_with_a_service(server, network):
    network.names.addresses["target.test"] = ["127.0.0.1"]
    peer = network.behind_file(lambda peer: {"m.server": "service.test"}, "service.test")
    network.names.services["_matrix-fed._tcp.service.test"] = [(10, 0, peer.port, "target.test")]
    network.names.services["_matrix._tcp.service.test"] = [(10, 0, 1, "target.test")]
    assert_found(server, peer, "service.test", "service.test")


def test_a_file_that_names_a_host_with_the_older_service(server, network):
    network.names.addresses["target.test"] = ["127.0.0.1"]
    peer = network.behind_file(lambda peer: {"m.server": "older.test"}, "older.test")
    network.names.services["_matrix._tcp.older.test"] = [(10, 0, peer.port, "target.test")]
    assert_found(server, peer, "older.test", "older.test")


def test_the_older_service_of_a_server_without_file(server, network):
    """It is looked up for the server's own name, which is what requests are for."""
    network.names.addresses["target.test"] = ["127.0.0.1"]
    peer = network.behind_file(lambda _: (404, {}))
    network.names.services[f"_matrix._tcp.{peer.name}"] = [(10, 0, peer.port, "target.test")]
    assert_found(server, peer, peer.name, peer.name)
    assert (f"_matrix-fed._tcp.{peer.name}", SRV) in network.names.asked


def test_services_in_the_order_of_their_priority(server, network):
    network.names.addresses["target.test"] = ["127.0.0.1"]
    peer = network.behind_file(lambda peer: {"m.server": "order.test"}, "order.test")
    backup = Listener(network.authority.certificate("order.test"))
    network.names.services["_matrix-fed._tcp.order.test"] = [
        (20, 100, backup.port, "target.test"),
        # Where nobody listens, and a name without address: the next is tried.
        (5, 100, 1, "target.test"),
        (7, 100, peer.port, "no-address.test"),
        (10, 0, peer.port, "target.test"),
    ]
    assert_found(server, peer, "order.test", "order.test")
    assert backup.requests == []
    backup.close()


def test_without_file_and_service_the_port_is_8448(server, network):
    network.files_of("default.test")[FILE] = lambda _: (404, {})
    assert_found(server, network.default_port, "default.test", "default.test")


def test_a_file_that_names_a_host_without_service_and_port(server, network):
    default = network.default_port
    peer = network.behind_file(lambda _: {"m.server": default.name})
    default.answers[KEYS] = lambda _: (200, peer.published())
    before = len(default.asked(KEYS))
    assert found(server, peer)
    (request,) = default.asked(KEYS)[before:]
    assert (request.headers["Host"], default.names[-1]) == (default.name, default.name)
    default.answers[KEYS] = lambda _: (200, default.published())


def test_a_file_is_asked_for_once(server, network, alice):
    """It is good for a day if it does not say otherwise, and so is for a while that there is none."""
    network.names.addresses.update({"once.test": ["127.0.0.1"], "target.test": ["127.0.0.1"]})
    there = network.behind_file(lambda peer: {"m.server": f"once.test:{peer.port}"}, "once.test")
    missing = network.behind_file(lambda _: (404, {}))
    network.names.services[f"_matrix-fed._tcp.{missing.name}"] = [(1, 1, missing.port, "target.test")]
    for peer in (there, missing):
        assert found(server, peer)
        for word in ("bob", "carol"):
            peer.answers["/_matrix/federation/v1/query/profile"] = lambda _: (200, {"displayname": "Bee"})
            assert alice.get("profile/{userId}", f"@{word}:{peer.name}")["displayname"] == "Bee"
        asked = [request for request in network.files.asked(FILE) if request.headers["Host"] == peer.name]
        assert len(asked) == 1, peer.name


PROFILE = "/_matrix/federation/v1/query/profile"


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [("max-age=1000", 1000), ("public", 24 * HOUR), ("max-age=1", 300), ("max-age=9999999", 48 * HOUR)],
    ids=["as it says", "a day", "not too short", "not too long"],
)
def test_a_file_is_asked_for_again_after_its_time_and_its_change_followed(network, tmp_path, policy, seconds):
    network.names.addresses.update({"before.test": ["127.0.0.1"], "after.test": ["127.0.0.1"]})
    says, clock = {}, Clock(tmp_path)
    before = network.behind_file(lambda _: (200, dict(says), {"Cache-Control": policy}), "before.test")
    after = network.peer("after.test")
    after.also_called.add(before.name)
    for peer, word in ((before, "before"), (after, "after")):
        peer.answers[PROFILE] = lambda _, word=word: (200, {"displayname": word})
    says["m.server"] = f"before.test:{before.port}"
    server = network.server(tmp_path)
    server.environment = clock.environment
    with server:
        alice, users = Client(server.base_url).register("alice"), itertools.count()

        def reached():
            """Who answers now under the server's name; it is another user each time, of whom nothing is remembered."""
            return alice.get("profile/{userId}", f"@user{next(users)}:{before.name}")["displayname"]

        def times_asked():
            return len([request for request in network.files.asked(FILE) if request.headers["Host"] == before.name])

        assert reached() == "before"
        says["m.server"] = f"after.test:{after.port}"
        clock.passes(seconds - SLACK_SECONDS)
        assert (reached(), times_asked()) == ("before", 1)
        clock.passes(2 * SLACK_SECONDS)
        assert (reached(), times_asked()) == ("after", 2)
        assert after.requests[-1].headers["Host"] == f"after.test:{after.port}"
        clock.passes(seconds - SLACK_SECONDS)
        assert (reached(), times_asked()) == ("after", 2)


def test_that_there_is_no_file_is_looked_for_again(network, tmp_path):
    """A server is where its file says once it has one, though it had none before."""
    network.names.addresses.update({"target.test": ["127.0.0.1"], "later.test": ["127.0.0.1"]})
    clock, found_file = Clock(tmp_path), [(404, {})]
    before, after = network.behind_file(lambda _: found_file[-1]), network.peer("later.test")
    after.also_called.add(before.name)
    network.names.services[f"_matrix-fed._tcp.{before.name}"] = [(1, 1, before.port, "target.test")]
    for peer, word in ((before, "before"), (after, "after")):
        peer.answers[PROFILE] = lambda _, word=word: (200, {"displayname": word})
    server = network.server(tmp_path)
    server.environment = clock.environment
    with server:
        alice = Client(server.base_url).register("alice")
        for passed, user, expected in ((0, "a", "before"), (0, "b", "before"), (2 * 60, "c", "after")):
            clock.passes(passed)
            assert alice.get("profile/{userId}", f"@{user}:{before.name}")["displayname"] == expected
            found_file.append((200, {"m.server": f"later.test:{after.port}"}))


def test_a_file_that_does_not_come_is_not_waited_for(server, network):
    network.names.addresses["target.test"] = ["127.0.0.1"]
    gives_up = threading.Event()
    peer = network.behind_file(lambda _: gives_up.wait(60) and (200, {"m.server": "late.test"}))
    network.names.services[f"_matrix-fed._tcp.{peer.name}"] = [(1, 1, peer.port, "target.test")]
    begun = time.monotonic()
    assert_found(server, peer, peer.name, peer.name)
    assert time.monotonic() - begun < SECONDS_MAX
    gives_up.set()


def test_a_file_that_whoever_asked_first_did_not_wait_for_is_not_asked_for_again(server, network, alice):
    """Spaces are not waited for as long: what is found out on the way is for the next request."""
    network.names.addresses["target.test"] = ["127.0.0.1"]
    gives_up = threading.Event()
    peer = network.behind_file(lambda _: gives_up.wait(60) and (200, {"m.server": "late.test"}))
    network.names.services[f"_matrix-fed._tcp.{peer.name}"] = [(1, 1, peer.port, "target.test")]
    space = alice.create_room(creation_content={"type": "m.space"})
    alice.set_state(space, "m.space.child", {"via": [peer.name]}, f"!room:{peer.name}")
    alice.get("/_matrix/client/v1/rooms/{roomId}/hierarchy", space)
    assert peer.requests == []
    assert_found(server, peer, peer.name, peer.name)
    assert len([request for request in network.files.asked(FILE) if request.headers["Host"] == peer.name]) == 1
    gives_up.set()


def trickling(content, stops):
    """The bytes of a file, one after the other, none of them long after the one before; and then more of them."""
    for byte in itertools.chain(content, itertools.repeat(b" "[0])):
        if stops.wait(0.05):
            return
        yield bytes([byte])


def test_a_file_that_comes_byte_by_byte_is_not_waited_for(server, network):
    """Whether what it says is there before its end, or never: the server is where the services of its own name say."""
    network.names.addresses["target.test"] = ["127.0.0.1"]
    stops, peers = threading.Event(), []
    for content in (b'{"m.server":"late.test:1"}', b'{"m.server":"' + b"a" * 1_000):
        peer = network.behind_file(lambda _, content=content: (200, trickling(content, stops)))
        network.names.services[f"_matrix-fed._tcp.{peer.name}"] = [(1, 1, peer.port, "target.test")]
        peers.append(peer)
    begun = time.monotonic()
    # They wait for their files at the same time.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda peer: assert_found(server, peer, peer.name, peer.name), peers))
    assert time.monotonic() - begun < SECONDS_MAX
    stops.set()


SPACES = b" " * 65_536
SAID = b'{"m.server":"not-there.test:1"}'
# How a file begins, and how it goes on as long as somebody reads it.
ENDLESS = {
    "behind what it says": (SAID, SPACES),
    "within it": (SAID[:-1] + b',"x":"', b"x" * 65_536),
    "before it": (SPACES, SPACES),
}


@pytest.mark.parametrize("status", [200, 302, 404])
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_file_without_end_counts_for_nothing(server, network, kind, status):
    """What has come of it is not looked at; and no more comes than may be."""
    network.names.addresses["target.test"] = ["127.0.0.1"]
    (head, piece), ended = ENDLESS[kind], threading.Event()

    def pieces():
        try:
            yield from itertools.chain([head], itertools.repeat(piece))
        finally:
            ended.set()

    peer = network.behind_file(lambda _: (status, pieces(), {"Location": FILE}))
    network.names.services[f"_matrix-fed._tcp.{peer.name}"] = [(1, 1, peer.port, "target.test")]
    assert_found(server, peer, peer.name, peer.name)
    assert ended.wait(SECONDS_MAX), "it is still read"


@pytest.mark.parametrize("policy", ["no-store", "max-age=0", "private, max-age=1"])
def test_a_file_that_forbids_to_be_kept_is_not_asked_for_again_before_each_request(server, network, alice, policy):
    """Nobody can make this server ask as often as requests go out."""
    network.names.addresses["shortly.test"] = ["127.0.0.1"]
    headers = {"Cache-Control": policy}
    peer = network.behind_file(lambda peer: (200, {"m.server": f"shortly.test:{peer.port}"}, headers), "shortly.test")
    peer.answers["/_matrix/federation/v1/query/profile"] = lambda _: (200, {"displayname": "Bee"})
    for number in range(5):
        assert alice.get("profile/{userId}", f"@b{number}:{peer.name}")["displayname"] == "Bee"
    assert len(peer.asked("/_matrix/federation/v1/query/profile")) == 5
    assert len([request for request in network.files.asked(FILE) if request.headers["Host"] == peer.name]) == 1


def test_a_redirected_file(server, network):
    def redirect(peer):
        network.files_of(peer.name)["/elsewhere"] = lambda _: (301, b"", {"Location": "https://host0.file.test/file"})
        network.files_of("host0.file.test")["/file"] = lambda _: (200, {"m.server": f"redirected.test:{peer.port}"})
        return 302, b"", {"Location": "/elsewhere"}

    network.names.addresses["redirected.test"] = ["127.0.0.1"]
    peer = network.behind_file(redirect, "redirected.test")
    assert_found(server, peer, f"redirected.test:{peer.port}", "redirected.test")


def test_whatever_content_type_the_file_has(server, network):
    network.names.addresses["typed.test"] = ["127.0.0.1"]
    plain = {"Content-Type": "text/plain"}
    peer = network.behind_file(lambda peer: (200, {"m.server": f"typed.test:{peer.port}"}, plain), "typed.test")
    assert_found(server, peer, f"typed.test:{peer.port}", "typed.test")


def test_files_that_count_for_nothing(server, network):
    """The server is then where the services of its own name say."""
    network.names.addresses["target.test"] = ["127.0.0.1"]
    delegated = {"m.server": "not-there.test:1"}
    for content in (
        (404, delegated),
        (500, delegated),
        (200, b"not JSON"),
        (200, b"[]"),
        (200, {"m.server": 5}),
        (200, {"m.server": "https://not-there.test"}),
        (200, {"m.server": "not there"}),
        (200, {**delegated, "padding": "x" * 100_000}),
        (302, b"", {"Location": "http://host0.file.test/file"}),
        (302, b""),
        # A loop.
        (302, b"", {"Location": FILE}),
    ):
        peer = network.behind_file(lambda _, content=content: content)
        network.names.services[f"_matrix-fed._tcp.{peer.name}"] = [(1, 1, peer.port, "target.test")]
        assert_found(server, peer, peer.name, peer.name)
    assert len(network.files.asked(FILE)) < 100, "a loop is left soon"


def test_a_certificate_for_another_name(server, network):
    # The target of a service need not have one; the name that requests are for must.
    network.names.addresses["target.test"] = ["127.0.0.1"]
    wrong = network.behind_file(lambda peer: {"m.server": "wrong.test"}, "target.test")
    network.names.services["_matrix-fed._tcp.wrong.test"] = [(1, 1, wrong.port, "target.test")]
    assert not found(server, wrong) and wrong.requests == []
    undelegated = network.behind_file(lambda peer: {"m.server": f"target.test:{peer.port}"})
    assert not found(server, undelegated) and undelegated.requests == []


@pytest.mark.parametrize("address, other", [("127.0.0.1", "127.0.0.2"), ("::1", "::2"), ("127.0.0.1", "address.test")])
def test_a_certificate_for_another_address(server, network, address, other):
    """An address that names no host must be in the certificate itself (server-server API, "Resolving server names")."""
    peer = Peer(address, network.authority, certified=other, address=(address, free(address, 0)))
    network.names.addresses["address.test"] = [address]
    assert not found(server, peer) and peer.requests == []
    # It was there, and was asked for no more than its certificate.
    assert peer.names == [None]
    peer.close()


def test_a_certificate_of_an_unknown_authority(server, network, tmp_path):
    peer = Peer("unknown.test", Authority(tmp_path, "Nobody"))
    network.names.addresses["unknown.test"] = ["127.0.0.1"]
    assert not found(server, peer) and peer.requests == []
    peer.close()


def test_the_systems_authorities_are_trusted_too(network, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(network.authority.path))
    options = ["--allow-private-addresses", "on", "--dns-servers", network.names.address]
    with Server(tmp_path / "data", *options) as server:
        assert found(server, network.peer("system.test"))
    monkeypatch.delenv("SSL_CERT_FILE")
    with Server(tmp_path / "other", *options) as server:
        assert not found(server, network.peer("other-system.test"))


def test_where_the_operator_says(network, tmp_path):
    """Whatever files and names say; and the certificate is still for the name."""
    peer, wrong = Peer("told.test", network.authority, name="told.test"), network.peer("not-told.test")
    rows = [f"told.test=127.0.0.1:{peer.port}", f"mistold.test=127.0.0.1:{wrong.port}"]
    with network.server(tmp_path, *(word for row in rows for word in ("--federation-resolve", row))) as server:
        assert_found(server, peer, "told.test", "told.test")
        wrong.name = "mistold.test"
        assert not found(server, wrong) and wrong.requests == []
    assert "told.test" not in [name for name, _ in network.names.asked]
    peer.close()


def test_an_address_that_does_not_answer_is_passed_by(server, network):
    peer = network.peer("several.test")
    network.names.addresses["several.test"] = ["127.0.0.2", "::1", "127.0.0.1"]
    assert found(server, peer)


def test_a_name_with_many_addresses_of_the_newer_kind_is_reached_at_its_older_one(server, network):
    """As from wherever there is no IPv6: none of the newer ones answers."""
    peer = network.peer("many.test")
    network.names.addresses["many.test"] = [f"fd00:dead::{number}" for number in range(1, 9)] + ["127.0.0.1"]
    assert found(server, peer)


@pytest.mark.parametrize("kind", [AAAA, A], ids=["newer", "older"])
def test_addresses_of_a_kind_that_nobody_answers_for_are_not_waited_for(server, network, kind):
    host = f"silent{kind}.test"
    there = {AAAA: "127.0.0.1", A: "::1"}[kind]
    peer = Peer(host, network.authority, address=(there, free(there, 0)))
    network.names.addresses[host] = [there]
    network.names.silent.add((host, kind))
    assert found(server, peer)
    assert (host, kind) in network.names.asked
    peer.close()


def test_services_that_nobody_answers_for_are_not_waited_for(network, tmp_path):
    peer = network.default_port
    network.files_of(peer.name)[FILE] = lambda _: (404, {})
    services = {(f"{service}.{peer.name}", SRV) for service in ("_matrix-fed._tcp", "_matrix._tcp")}
    network.names.silent |= services
    # Of its own: another server may hold a connection already.
    with network.server(tmp_path) as server:
        assert_found_anew(server, peer)
    assert services <= set(network.names.asked)
    network.names.silent -= services


def assert_found_anew(server, peer):
    before = len(peer.asked(KEYS))
    assert found(server, peer)
    assert len(peer.asked(KEYS)) > before
