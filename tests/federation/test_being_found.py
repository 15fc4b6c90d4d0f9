"""How others find this server and know it by its certificate (server-server API, "Resolving server names", "TLS")."""

import os
import socket
import ssl

import pytest
import requests

from harness.client import Client
from harness.federated import Warren
from harness.server import Server, sound
from harness.waiting import until

FILE = "/.well-known/matrix/server"
VERSION = "/_matrix/federation/v1/version"


def test_the_file_says_where_it_is(tmp_path):
    with Server(tmp_path / "data", "--well-known-server", "burrow.test:443") as server:
        assert Client(server.base_url).get(FILE) == {"m.server": "burrow.test:443"}
        assert "max-age=" in requests.get(server.base_url + FILE, timeout=10).headers["Cache-Control"]


def test_there_is_no_file_where_none_is_wanted(server):
    Client(server.base_url).get(FILE, status=404, errcode="M_NOT_FOUND")


@pytest.fixture
def secure(network, tmp_path):
    """A server that others reach over TLS."""
    with sound(Warren(tmp_path / "data", network.authority)) as server:
        yield server


def shown_certificate(server, authority):
    """The number of the certificate that is shown to who connects."""
    context = ssl.create_default_context(cafile=authority.path)
    with socket.create_connection(("127.0.0.1", server.federation_port)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            return secured.getpeercert()["serialNumber"]


def test_a_certificate_that_is_renewed_is_taken_up(secure, network):
    first = shown_certificate(secure, network.authority)
    # What cannot be used takes nothing away.
    secure.certificate.write_text("half a certificate")
    until(lambda: "cannot be used" in secure.log_tail())
    assert shown_certificate(secure, network.authority) == first
    os.replace(network.authority.certificate("localhost"), secure.certificate)
    until(lambda: shown_certificate(secure, network.authority) != first)


def test_a_listener_for_servers_serves_them_alone(secure, network):
    def status(address, path):
        return requests.get(address + path, verify=str(network.authority.path), timeout=10).status_code

    address = f"https://{secure.name}"
    assert status(address, VERSION) == 200
    for path in ("/_matrix/client/versions", "/_synapse/admin/v1/federation/destinations"):
        assert status(address, path) == 404, path
        assert status(secure.base_url, path) != 404, path
