"""One server for the tests of federation, which lives among hand-written peers."""

import pytest

from harness.hasty import Hasty
from harness.metrics import Counting
from harness.participant import Participant
from harness.server import free_port, sound

KEYS = "/_matrix/key/v2/server"


@pytest.fixture(scope="session")
def server(network, tmp_path_factory):
    options = ["--federation-deny", "*.denied.test", "--never-trust-keys", "ed25519:leaked"]
    options += ["--trusted-key-servers", network.notary.name, "--device-names-over-federation", "on"]
    with sound(network.server(tmp_path_factory.mktemp("federation"), *options)) as server:
        yield server


@pytest.fixture
def measured(network, tmp_path):
    """A server of the test's own, and what it refuses."""
    address = f"http://127.0.0.1:{free_port()}"
    options = ["--metrics-listen", address, "--federation-deny", "*.denied.test", "--never-trust-keys", "ed25519:leaked"]
    with network.server(tmp_path, *options) as server:
        yield server, Counting(address)


@pytest.fixture
def base_url(server):
    """Users are of this server."""
    return server.base_url


@pytest.fixture
def peer(network):
    return network.peer()


@pytest.fixture
def resident_kind():
    """What `resident` is; tests may want another."""
    return Participant


@pytest.fixture
def resident(network, resident_kind):
    """A peer whose users come into rooms."""
    peer = network.peer(kind=resident_kind)
    yield peer
    peer.close()


@pytest.fixture
def hasty(network):
    """A peer that keeps its answer to a join back until a test lets it give it."""
    peer = network.peer(kind=Hasty)
    yield peer
    peer.may_answer.set()
    peer.close()


@pytest.fixture
def other(network, resident):
    """Another server, which has whatever the resident has."""
    peer = network.peer(kind=Participant)
    peer.share(resident)
    yield peer
    peer.close()


@pytest.fixture
def neighbour(resident, other):
    """The other server, where the resident leaves out members and says that it is in its rooms."""
    resident.others = [other.name]
    return other


@pytest.fixture
def away(network, resident):
    """A server whose users are in rooms of the resident's, and that tells nobody its keys until it has its answer back."""
    peer = network.peer(kind=Participant)
    peer.share(resident)
    peer.copies = resident.copies
    peer.told_keys = peer.answers[KEYS]
    peer.answers[KEYS] = lambda _: (503, {"errcode": "M_UNKNOWN", "error": "Not now."})
    yield peer
    peer.close()
