"""One server among hand-written ones that deceive it. What is asserted is what its users and its honest peers see."""

import pytest

from harness.client import Client
from harness.participant import Participant
from harness.server import Server


@pytest.fixture(scope="session")
def server(network, tmp_path_factory):
    options = ["--allow-private-addresses", "on", "--never-trust-keys", "ed25519:leaked"]
    with Server(tmp_path_factory.mktemp("hostile") / "data", *options, *network.options) as server:
        yield server
        assert server.stop() == 0, server.log_tail()
        server.check()


@pytest.fixture
def hostile(network):
    return network.peer(kind=Participant)


@pytest.fixture
def honest(network):
    return network.peer(kind=Participant)


@pytest.fixture
def alice(server):
    return Client(server.base_url).register("alice")


@pytest.fixture
def bob(server):
    return Client(server.base_url).register("bob")


@pytest.fixture
def room(alice):
    """A public room of Alice's."""
    return alice.create_room(preset="public_chat", room_version="11")


@pytest.fixture
def copy(server, hostile, room):
    """What the hostile server has of Alice's room, in which its user Mallory is."""
    return hostile.join(server, room)
