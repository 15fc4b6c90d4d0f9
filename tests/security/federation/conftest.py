"""One server among hand-written ones that deceive it. What is asserted is what its users and its honest peers see."""

import pytest

from harness.participant import Participant
from harness.server import sound


@pytest.fixture(scope="session")
def server(network, tmp_path_factory):
    with sound(network.server(tmp_path_factory.mktemp("hostile"), "--never-trust-keys", "ed25519:leaked")) as server:
        yield server


@pytest.fixture
def base_url(server):
    """Users are of this server."""
    return server.base_url


@pytest.fixture
def hostile(network):
    return network.peer(kind=Participant)


@pytest.fixture
def honest(network):
    return network.peer(kind=Participant)


@pytest.fixture
def room(alice):
    """A public room of Alice's."""
    return alice.create_room(preset="public_chat", room_version="11")


@pytest.fixture
def copy(server, hostile, room):
    """What the hostile server has of Alice's room, in which a user of its own is."""
    return hostile.join(server, room)
