"""One room on four servers, two of each kind: what one says or changes, all hear, and all hold the same state."""

import pytest

from harness.beside import tell_beside
from harness.client import unique
from harness.rooms import joined_members, left, members, see, state_ids, until_joined, until_membership, until_state, via


@pytest.fixture
def servers(here, synapse, other_warren, other_synapse):
    return [here, synapse, other_warren, other_synapse]


@pytest.fixture
def users(servers):
    names = ["alice", "bob", "carol", "dave"]
    return [server.client(server.base_url).register(name) for server, name in zip(servers, names, strict=True)]


def ids(events):
    return [event["event_id"] for event in events]


def redact(client, room, event_id):
    return client.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, event_id, unique("redact"))["event_id"]


def assert_same_state(users, room):
    assert len({frozenset(state_ids(user, room)) for user in users}) == 1


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
    said = []
    for sender in users:
        said.append(sender.send(room, f"hello from {sender.user_id}"))
        for reader in users:
            assert see(reader, room, said[-1])["content"]["body"] == f"hello from {sender.user_id}"
    for at, sender in enumerate(users):
        redaction = redact(sender, room, said[at])
        # Nobody is told who has read what they said themselves.
        for heard in tell_beside(sender, [user for user in users if user is not sender], room, said[at - 1]):
            heard.reader.sync_until(lambda answer: heard.look(answer) and redaction in ids(heard.events))
            heard.check()
            shown = heard.reader.get("rooms/{roomId}/event/{eventId}", room, said[at])
            assert shown["content"] == {} and shown["unsigned"]["redacted_because"]["event_id"] == redaction
    owner.set_state(room, "m.room.topic", {"topic": "warm and dry"})
    for reader in users:
        until_state(reader, room, "m.room.topic", "", {"topic": "warm and dry"})
    gone = users[(first + 3) % 4]
    gone.leave(room)
    rest = [user for user in users if user is not gone]
    for reader in rest:
        until_membership(reader, room, "leave", gone)
    assert_same_state(rest, room)
    out = users[(first + 2) % 4]
    owner.post("rooms/{roomId}/kick", room, json={"user_id": out.user_id, "reason": "out"})
    told = out.sync_until(lambda answer: left(answer, room))["timeline"]["events"][-1]
    assert (told["sender"], told["content"]["reason"]) == (owner.user_id, "out")
    rest.remove(out)
    for reader in rest:
        see(reader, room, told["event_id"])
        assert out.user_id in members(reader, room, "leave")
    assert_same_state(rest, room)
