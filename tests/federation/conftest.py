"""One server for the tests of federation, which lives among hand-written peers."""

import contextlib

import pytest

from harness.metrics import Counting
from harness.participant import Participant
from harness.policies import signs
from harness.server import free_port, sound
from harness.withholding import Hasty

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
def base_url(request):
    """Users are of the server that is the test's own, where it has one."""
    if "warren" in request.fixturenames:
        return request.getfixturevalue("warren").base_url
    if "measured" in request.fixturenames:
        return request.getfixturevalue("measured")[0].base_url
    return request.getfixturevalue("server").base_url


@pytest.fixture
def peer(network):
    return network.peer()


@pytest.fixture
def until_over(network):
    """Makes peers of a kind that are there until the test is over."""
    with contextlib.ExitStack() as peers:
        yield lambda kind: peers.enter_context(contextlib.closing(network.peer(kind=kind)))


@pytest.fixture
def resident_kind():
    """What `resident` is; tests may want another."""
    return Participant


@pytest.fixture
def resident(until_over, resident_kind):
    """A peer whose users come into rooms."""
    return until_over(resident_kind)


@pytest.fixture
def policy(resident):
    """A resident that is a policy server: it signs what does not say spam."""
    return signs(resident)


@pytest.fixture
def hasty(until_over):
    """A peer that keeps its answer to a join back until a test lets it give it."""
    return until_over(Hasty)


@pytest.fixture
def other(until_over, resident):
    """Another server, which has whatever the resident has."""
    peer = until_over(Participant)
    peer.share(resident)
    return peer


@pytest.fixture
def neighbour(resident, other):
    """The other server, where the resident leaves out members and says that it is in its rooms."""
    resident.others = [other.name]
    return other


@pytest.fixture
def away(until_over, resident):
    """A server whose users are in rooms of the resident's, and that tells nobody its keys until it has its answer back."""
    peer = until_over(Participant)
    peer.share(resident)
    peer.copies = resident.copies
    peer.told_keys = peer.answers[KEYS]
    peer.answers[KEYS] = lambda _: (503, {"errcode": "M_UNKNOWN", "error": "Not now."})
    return peer
