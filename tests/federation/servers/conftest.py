"""Real servers that talk to each other: a Warren, and beside it another Warren and a Synapse.

Every test that takes `there` is run with each of the two. `SYNAPSE_PYTHON` names a Python that has the package
`matrix-synapse`; without it the tests with Synapse fail.
"""

import pytest

from harness.certificates import Authority
from harness.federated import Synapse, Warren, synapse_python
from harness.rooms import entrust, meet
from harness.server import sound


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def here(authority, tmp_path_factory):
    """The Warren under test."""
    with sound(Warren(tmp_path_factory.mktemp("here") / "data", authority)) as server:
        yield server


@pytest.fixture(scope="session")
def other_warren(authority, tmp_path_factory):
    with sound(Warren(tmp_path_factory.mktemp("there") / "data", authority)) as server:
        yield server


def start_synapse(authority, tmp_path_factory):
    with Synapse(tmp_path_factory.mktemp("synapse") / "data", authority, synapse_python()) as server:
        yield server


@pytest.fixture(scope="session")
def synapse(authority, tmp_path_factory):
    yield from start_synapse(authority, tmp_path_factory)


@pytest.fixture(scope="session")
def other_synapse(authority, tmp_path_factory):
    yield from start_synapse(authority, tmp_path_factory)


@pytest.fixture(params=["other_warren", "synapse"])
def there(request):
    """The other server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def alice(here):
    """A user of the Warren under test."""
    return here.client(here.base_url).register("alice")


@pytest.fixture
def bob(there):
    """A user of the other server."""
    return there.client(there.base_url).register("bob")


@pytest.fixture
def room_version():
    """That of `room`; a test may want others."""
    return "10"


@pytest.fixture
def room(there, alice, bob, room_version):
    """A room of Bob's that Alice has joined, in which she may do what he may."""
    room = meet(bob, alice, there, room_version=room_version)
    entrust(bob, room, alice, 100)
    alice.sync()
    bob.sync()
    return room
