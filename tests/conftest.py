"""Fixtures of the tests over HTTP: one server for all of them, and users as they are needed.

`HOMESERVER_URL` names a running homeserver to test instead of our own; `HOMESERVER_PEER=synapse` says that it is Synapse,
where tests marked `ours` are left out: there the mark's reason says how Synapse departs from the specification.
"""

import os
import resource

import pytest

from harness.client import Client
from harness.network import Network
from harness.peer import faults
from harness.server import Server, own_environment, sound


def pytest_configure(config):
    # Neither the options nor the proxies of whoever runs the tests are theirs.
    for name in set(os.environ) - set(own_environment()):
        del os.environ[name]
    os.environ.update(NO_PROXY="*", no_proxy="*")
    # Peers stay open to the end, each with its connections.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    config.addinivalue_line("markers", "ours(reason): Synapse departs here from the specification")
    config.addinivalue_line("markers", "last: looks back at all other tests, which must have run")


def pytest_runtest_setup(item):
    mark = item.get_closest_marker("ours")
    if mark and os.environ.get("HOMESERVER_PEER") == "synapse":
        pytest.skip(mark.args[0])


def pytest_collection_modifyitems(items):
    # What looks back at all others comes last.
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def base_url(tmp_path_factory):
    """The address of the homeserver under test."""
    if "HOMESERVER_URL" in os.environ:
        yield os.environ["HOMESERVER_URL"]
        return
    with sound(Server(tmp_path_factory.mktemp("server") / "data")) as server:
        yield server.base_url


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """An internet of hand-written servers."""
    network = Network(tmp_path_factory.mktemp("network"))
    yield network
    network.close()


@pytest.fixture
def warren(network, tmp_path):
    """A server of the test's own among hand-written ones, with an administrator."""
    server = network.server(tmp_path)
    server.admin_password = server.make_administrator("warden")
    with sound(server):
        yield server


@pytest.fixture
def admin(warren):
    return Client(warren.base_url, "@warden:" + warren.name).login(warren.admin_password)


@pytest.fixture(autouse=True)
def _requests_fit_the_specification():
    """Whatever is sent to hand-written peers is judged as it comes."""
    faults.clear()
    yield
    assert not faults, "requests that do not fit the specification:\n" + "\n".join(faults)


@pytest.fixture
def nobody(base_url):
    """A client without a token."""
    return Client(base_url)


@pytest.fixture
def alice(nobody):
    return nobody.register("alice")


@pytest.fixture
def bob(nobody):
    return nobody.register("bob")


@pytest.fixture
def carol(nobody):
    return nobody.register("carol")


@pytest.fixture
def room(alice, bob):
    """A private room that Alice made and Bob has joined."""
    room = alice.create_room(preset="private_chat", invite=[bob.user_id], name="The burrow")
    bob.join(room)
    return room
