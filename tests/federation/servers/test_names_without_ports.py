"""Servers that are called by less than where they are reached, and find each other all the same.

Those of the other tests are all called `localhost` and the port that they listen at.
"""

import contextlib

import pytest

from harness.federated import Place, Synapse, Warren, synapse_python
from harness.rooms import come_together
from harness.server import free_address, free_port, sound
from harness.wire import Proxy

# Where a server is that names no port.
PORT_DEFAULT = 8448


def assert_they_find_each_other(here, there):
    alice, bob = (server.client(server.base_url).register() for server in (here, there))
    come_together(alice, bob, here, "11")
    come_together(bob, alice, there, "11")


def at_an_address():
    address = free_address(PORT_DEFAULT)
    return Place(address, PORT_DEFAULT, address, (address,))


@pytest.fixture(params=["Warren", "Synapse"])
def at_another_address(request, authority, tmp_path):
    if request.param == "Synapse":
        return Synapse(tmp_path / "there", authority, synapse_python(), at_an_address())
    return sound(Warren(tmp_path / "there", authority, place=at_an_address()))


def test_addresses(authority, tmp_path, at_another_address):
    with (
        sound(Warren(tmp_path / "here", authority, place=at_an_address())) as here,
        at_another_address as there,
    ):
        assert ":" not in here.name + there.name
        assert_they_find_each_other(here, there)


def test_files(authority, tmp_path):
    """Each serves one, and nobody else knows anything of the names."""
    ours = Place("warren.test", free_port(), certified=("warren.test", "delegated.test"))
    theirs = Place("synapse.test", free_port(), certified=("synapse.test",))
    delegated = "delegated.test:443"
    # Synapse's file names itself at port 443.
    options = ["--well-known-server", delegated, "--federation-resolve", f"synapse.test:443=127.0.0.1:{theirs.port}"]
    with contextlib.closing(Proxy({"warren.test:443": ours.port, delegated: ours.port})) as proxy:
        settings = f"serve_server_wellknown: true\nhttps_proxy: 'http://{proxy.address}'\nno_proxy_hosts: []\n"
        with (
            sound(Warren(tmp_path / "here", authority, *options, place=ours)) as here,
            Synapse(tmp_path / "there", authority, synapse_python(), theirs, settings) as there,
        ):
            assert_they_find_each_other(here, there)
        assert proxy.asked == {"warren.test:443", delegated}
