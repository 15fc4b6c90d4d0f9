"""A Warren is the policy server of rooms that other servers are in: they have it sign what their users say, and tell these why it does
not."""

import pytest

from harness.federated import Warren
from harness.policies import protect, with_list
from harness.rooms import joined_members, meet, see, until_joined, until_state
from harness.server import sound


@pytest.fixture
def keeper(authority, tmp_path):
    """A policy server, with the list that it goes by."""
    with sound(Warren(tmp_path / "keeper", authority, "--policy-server", "on")) as server:
        server.list = with_list(server)
        yield server


@pytest.fixture
def zoe(keeper):
    return keeper.client(keeper.base_url).register("zoe")


def test_users_of_other_servers_are_told_why_they_are_refused(keeper, zoe, bob):
    room = meet(zoe, bob, keeper, room_version="11")
    until_state(bob, room, "m.room.policy", "", protect(zoe, room, keeper))
    see(zoe, room, bob.send(room, "hello"))
    see(bob, room, zoe.send(room, "welcome"))
    lift = keeper.list.ban("user", bob.user_id)
    refused = bob.send(room, "spam", status=400, errcode="M_FORBIDDEN")
    assert "the sender is banned by a moderation policy list" in refused["error"]
    lift()
    see(zoe, room, bob.send(room, "hello again"))
    # So it is with who comes in by way of the other server, and may go at any time.
    dora = bob.register("dora")
    lift = keeper.list.ban("user", dora.user_id)
    dora.join(room, status=400, errcode="M_FORBIDDEN")
    lift()
    dora.join(room)
    until_joined(zoe, room, dora)
    lift = keeper.list.ban("server", dora.server_name)
    dora.post("rooms/{roomId}/leave", room)
    zoe.sync_until(lambda _: dora.user_id not in joined_members(zoe, room))
    lift()
