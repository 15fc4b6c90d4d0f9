"""Access lists of rooms, as users set them (spec: Server Access Control Lists)."""

import pytest

WAYS = {
    "it allows nobody": lambda host: {},
    "it denies everybody": lambda host: {"allow": ["*"], "deny": ["*"]},
    "it denies this server": lambda host: {"allow": ["*"], "deny": [host.upper()]},
    "it allows another": lambda host: {"allow": ["there.example"]},
}
OTHERS = {"allow": ["*"], "deny": ["there.example"]}


@pytest.fixture
def host(alice):
    return alice.server_name.rsplit(":", 1)[0]


@pytest.mark.parametrize("way", WAYS)
def test_nobody_shuts_out_their_own_server(alice, room, host, way):
    alice.set_state(room, "m.room.server_acl", OTHERS)
    answer = alice.set_state(room, "m.room.server_acl", WAYS[way](host), status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_UNKNOWN")
    assert alice.state(room, "m.room.server_acl") == OTHERS


@pytest.mark.parametrize("way", WAYS)
def test_no_room_is_created_without_its_own_server(alice, host, way):
    access_list = {"type": "m.room.server_acl", "state_key": "", "content": WAYS[way](host)}
    answer = alice.post("createRoom", json={"initial_state": [access_list]}, status=400)
    assert answer["errcode"] in ("M_INVALID_ROOM_STATE", "M_UNKNOWN")
    room = alice.create_room(initial_state=[{**access_list, "content": OTHERS}])
    assert alice.state(room, "m.room.server_acl") == OTHERS
