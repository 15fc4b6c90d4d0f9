"""One server for the tests of federation, which lives among hand-written peers."""

import pytest

from harness.client import Client, unique
from harness.resident import Resident
from harness.server import Server


@pytest.fixture(scope="session")
def server(network, tmp_path_factory):
    options = ["--allow-private-addresses", "on", "--federation-deny", "*.denied.test"]
    options += ["--never-trust-keys", "ed25519:leaked", "--trusted-key-servers", network.notary.name]
    with Server(tmp_path_factory.mktemp("federation") / "data", *options, *network.options) as server:
        yield server
        assert server.stop() == 0, server.log_tail()
        server.check()


@pytest.fixture
def warren(network, tmp_path):
    """A server of the test's own, with an administrator."""
    server = Server(tmp_path / "data", "--allow-private-addresses", "on", *network.options)
    server.admin_password = server.make_administrator("warden")
    with server:
        yield server
        assert server.stop() == 0, server.log_tail()
        server.check()


@pytest.fixture
def admin(warren):
    return Client(warren.base_url, "@warden:" + warren.name).login(warren.admin_password)


@pytest.fixture
def peer(network):
    return network.peer()


@pytest.fixture
def resident(network):
    """A peer whose users come into rooms."""
    host = f"{unique('resident')}.test"
    peer = Resident(host, network.authority)
    network.names.addresses[host] = ["127.0.0.1"]
    yield peer
    peer.close()


@pytest.fixture
def member(network):
    """A peer whose users come into rooms."""
    member = network.member(f"{unique('member')}.test")
    yield member
    member.close()
