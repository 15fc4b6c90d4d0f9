"""One server for the tests of federation, which lives among hand-written peers."""

import pytest

from harness.participant import Participant
from harness.server import sound


@pytest.fixture(scope="session")
def server(network, tmp_path_factory):
    options = ["--federation-deny", "*.denied.test", "--never-trust-keys", "ed25519:leaked"]
    options += ["--trusted-key-servers", network.notary.name, "--device-names-over-federation", "on"]
    with sound(network.server(tmp_path_factory.mktemp("federation"), *options)) as server:
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
