"""One room on four servers, two of each kind: what one says or changes, all hear, and all hold the same state."""

import pytest

from harness.rooms import joined_members, see, state_ids, until_joined, until_membership, until_state, via


@pytest.fixture
def servers(here, synapse, other_warren, other_synapse):
    return [here, synapse, other_warren, other_synapse]


@pytest.fixture
def users(servers):
    names = ["alice", "bob", "carol", "dave"]
    return [server.client(server.base_url).register(name) for server, name in zip(servers, names, strict=True)]


@pytest.mark.parametrize("first", range(4), ids=["warren", "synapse", "other warren", "other synapse"])
def test_all_hear_all(servers, users, first):
    owner = users[first]
    room = owner.create_room(preset="public_chat", room_version="11", name="The burrow")
    # Each comes in by way of the one before.
    for at in range(first + 1, first + 4):
        users[at % 4].join(room, query=via(servers[(at - 1) % 4]))
        until_joined(owner, room, users[at % 4])
    everybody = {user.user_id for user in users}
    for user in users:
        user.sync_until(lambda _: joined_members(user, room) == everybody)
        user.sync()
    for sender in users:
        event_id = sender.send(room, f"hello from {sender.user_id}")
        for reader in users:
            assert see(reader, room, event_id)["content"]["body"] == f"hello from {sender.user_id}"
    owner.set_state(room, "m.room.topic", {"topic": "warm and dry"})
    for reader in users:
        until_state(reader, room, "m.room.topic", "", {"topic": "warm and dry"})
    gone = users[(first + 3) % 4]
    gone.leave(room)
    left = [user for user in users if user is not gone]
    for reader in left:
        until_membership(reader, room, "leave", gone)
    wanted = state_ids(owner, room)
    assert all(state_ids(reader, room) == wanted for reader in left)
