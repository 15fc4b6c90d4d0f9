"""One server for the tests of federation, which lives among hand-written peers."""

import pytest

from harness.participant import Participant
from harness.server import Server, sound


@pytest.fixture(scope="session")
def server(network, tmp_path_factory):
    options = ["--allow-private-addresses", "on", "--federation-deny", "*.denied.test"]
    options += ["--never-trust-keys", "ed25519:leaked", "--trusted-key-servers", network.notary.name]
    with sound(Server(tmp_path_factory.mktemp("federation") / "data", *options, *network.options)) as server:
        yield server


@pytest.fixture
def base_url(server):
    """Users are of this server."""
    return server.base_url


@pytest.fixture
def peer(network):
    return network.peer()


@pytest.fixture
def resident(network):
    """A peer whose users come into rooms."""
    peer = network.peer(kind=Participant)
    yield peer
    peer.close()
