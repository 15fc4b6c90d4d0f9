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


def shared(owner, guest, keeper):
    """A room of two servers that one of them protects, as both know."""
    room = meet(owner, guest, keeper, room_version="11")
    until_state(guest, room, "m.room.policy", "", protect(owner, room, keeper))
    return room


def test_users_of_other_servers_are_told_why_they_are_refused(keeper, zoe, bob):
    room = shared(zoe, bob, keeper)
    see(zoe, room, bob.send(room, "hello"))
    see(bob, room, zoe.send(room, "welcome"))
    lift = keeper.list.ban("user", bob.user_id)
    refused = bob.send(room, "spam", status=400, errcode="M_FORBIDDEN")
    assert "the sender is banned by a moderation policy list" in refused["error"]
    lift()
    see(zoe, room, bob.send(room, "hello again"))


def test_who_comes_in_by_way_of_another_server_is_judged_and_may_go(keeper, zoe, other_warren):
    """Synapse has no memberships signed."""
    bob = other_warren.client(other_warren.base_url).register("bob")
    room, dora = shared(zoe, bob, keeper), bob.register("dora")
    lift = keeper.list.ban("user", dora.user_id)
    dora.join(room, status=400, errcode="M_FORBIDDEN")
    lift()
    dora.join(room)
    until_joined(zoe, room, dora)
    lift = keeper.list.ban("server", dora.server_name)
    dora.post("rooms/{roomId}/leave", room)
    zoe.sync_until(lambda _: dora.user_id not in joined_members(zoe, room))
    lift()
