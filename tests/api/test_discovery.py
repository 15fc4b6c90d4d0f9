"""What a client asks first: versions, capabilities, well-known (spec: Server Discovery, Capabilities negotiation)."""

import pytest

from harness.client import Client
from harness.server import Server


def test_versions(nobody):
    versions = nobody.get("/_matrix/client/versions")["versions"]
    assert "v1.1" in versions
    assert "r0.6.1" in versions


def test_versions_are_the_same_with_a_token(alice, nobody):
    assert alice.get("/_matrix/client/versions")["versions"] == nobody.get("/_matrix/client/versions")["versions"]


def test_capabilities(alice):
    capabilities = alice.get("capabilities")["capabilities"]
    rooms = capabilities["m.room_versions"]
    assert set(rooms["available"]) >= {str(number) for number in range(1, 13)}
    assert rooms["available"][rooms["default"]] == "stable"
    assert capabilities["m.change_password"]["enabled"] is True


@pytest.mark.parametrize("prefix", ["r0", "v3"])
def test_both_names_of_the_third_version(alice, prefix):
    assert alice.get(f"/_matrix/client/{prefix}/account/whoami")["user_id"] == alice.user_id


@pytest.mark.ours("Synapse has no page for the well-known file unless it is set")
def test_the_well_known_file_is_json_or_missing(nobody):
    answer = nobody.get("/.well-known/matrix/client", status=(200, 404))
    assert "m.homeserver" in answer or answer["errcode"] == "M_NOT_FOUND"


def test_a_policy_server_tells_what_rooms_are_to_name(tmp_path, nobody):
    """The key, which is the same after a restart and a time in which the server is none; and nothing if it is none."""
    file = "/.well-known/matrix/policy_server"
    nobody.get(file, status=404)
    with Server(tmp_path / "data", "--policy-server", "on") as server:
        client = Client(server.base_url)
        key = client.get(file)["public_keys"]["ed25519"]
        assert client.send_raw("GET", file).headers["Access-Control-Allow-Origin"] == "*"
        published = client.send_raw("GET", "/_matrix/key/v2/server").text
        assert key not in published and "policy_server" not in published
        server.restart()
        assert client.get(file)["public_keys"] == {"ed25519": key}
        switch = server.options.index("--policy-server") + 1
        server.options[switch] = "off"
        server.restart()
        client.get(file, status=404, errcode="M_NOT_FOUND")
        server.options[switch] = "on"
        server.restart()
        assert client.get(file)["public_keys"] == {"ed25519": key}


def test_a_server_without_relays_says_so(alice):
    # The specification has no answer for this; clients know what Synapse says.
    response = alice.send_raw("GET", "/_matrix/client/v3/voip/turnServer")
    assert (response.status_code, response.json()) == (200, {})
