"""Nothing that another server sends is a command: what administrators do, they do logged in, or at the machine.

The class of fault: commands of administrators that arrive over federation, or are edited into being.
"""

import pytest

from harness.client import Client
from harness.participant import id_of
from harness.rooms import see
from harness.server import Server

ROWS = [
    ("GET", "/_synapse/admin/v1/federation/destinations", None),
    ("POST", "/_synapse/admin/v1/federation/destinations/x.test/reset_connection", {}),
    ("GET", "/_matrix/client/v3/admin/whois/@warden:{0}", None),
    ("PUT", "/_matrix/client/v1/admin/suspend/@warden:{0}", {"suspended": True}),
    ("PUT", "/_matrix/client/v1/admin/lock/@warden:{0}", {"locked": True}),
    ("GET", "/_matrix/client/v3/account/whoami", None),
    ("POST", "/_matrix/client/v3/createRoom", {}),
]


@pytest.fixture
def server(network, tmp_path):
    server = Server(tmp_path / "data", "--allow-private-addresses", "on", *network.options)
    server.admin_password = server.make_administrator("warden")
    with server:
        yield server
        assert server.stop() == 0, server.log_tail()
        server.check()


@pytest.fixture
def warden(server):
    return Client(server.base_url, "@warden:" + server.name).login(server.admin_password)


def test_a_signature_of_a_server_opens_nothing_of_users_and_administrators(server, hostile):
    for method, target, body in ROWS:
        status, answer = hostile.send(server, method, target.format(server.name), body)
        assert (status, answer["errcode"]) in [(401, "M_MISSING_TOKEN"), (401, "M_UNKNOWN_TOKEN")], (target, answer)


def test_what_is_said_to_an_administrator_is_only_read(server, hostile, warden):
    """Neither said, nor edited into being, nor set as a name or a topic."""
    victim = Client(server.base_url).register("victim")
    room = warden.create_room(preset="public_chat", room_version="11")
    copy = hostile.join(server, room)
    warden.sync()
    for start in ("!admin", "\\!admin", "/admin", "@conduit:", f"@warden:{server.name}", "!warren", "warren"):
        for command in ("users deactivate", "user deactivate", "rooms delete", "server shutdown", "users make-admin"):
            text = f"{start} {command} {victim.user_id}"
            hostile.transact(server, [hostile.next(copy, "m.room.message", {"msgtype": "m.text", "body": text})])
            harmless = hostile.next(copy, "m.room.message", {"msgtype": "m.text", "body": "hello"})
            relation = {"rel_type": "m.replace", "event_id": id_of(harmless)}
            edit = {"msgtype": "m.text", "body": f"* {text}", "m.new_content": {"msgtype": "m.text", "body": text}}
            edited = hostile.next(copy, "m.room.message", {**edit, "m.relates_to": relation})
            assert hostile.transact(server, [harmless, edited]) == {id_of(harmless): {}, id_of(edited): {}}
    see(warden, room, id_of(edited))
    assert victim.get("account/whoami")["user_id"] == victim.user_id
    assert victim.login().user_id == victim.user_id
    found = warden.get("rooms/{roomId}/state", room)
    assert {event["sender"] for event in found} == {warden.user_id, hostile.user()}
