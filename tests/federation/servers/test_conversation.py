"""What users of two servers say and change in a common room, as the clients of both see it."""

import pytest

from harness.client import of_type, unique
from harness.rooms import meet, see, state_ids, until_state

REDACT = "rooms/{roomId}/redact/{eventId}/{txnId}"


def both(alice, bob):
    return [(alice, bob), (bob, alice)]


def test_messages_go_both_ways(room, alice, bob):
    for number in range(3):
        for sender, reader in both(alice, bob):
            event_id = sender.send(room, f"{number}")
            assert see(reader, room, event_id)["content"]["body"] == f"{number}"


def test_state_changes_go_both_ways(room, alice, bob):
    for sender, reader in both(alice, bob):
        content = {"topic": f"by {sender.user_id}"}
        sender.set_state(room, "m.room.topic", content)
        until_state(reader, room, "m.room.topic", "", content)
    assert state_ids(alice, room) == state_ids(bob, room)


@pytest.mark.parametrize("room_version", ["1", "10", "11", "12"])
def test_redactions_go_both_ways(room, alice, bob):
    """Clients are told what is redacted where those of version 10 look for it, and where those of later ones do."""
    for sender, reader in both(alice, bob):
        event_id = sender.send(room, "a slip of the tongue")
        see(reader, room, event_id)
        redaction = sender.put(REDACT, room, event_id, unique("redact"), json={"reason": "oops"})["event_id"]
        for client in (reader, sender):
            seen = see(client, room, redaction)
            assert (seen["redacts"], seen["content"]) == (event_id, {"redacts": event_id, "reason": "oops"})
            shown = client.get("rooms/{roomId}/event/{eventId}", room, event_id)
            assert shown["content"] == {} and shown["unsigned"]["redacted_because"]["event_id"] == redaction


@pytest.mark.parametrize("version", ["1", "12"])
def test_who_has_no_power_redacts_what_is_their_own(here, there, alice, bob, version):
    """In the first version because both events are of one server, in others because they have one sender."""
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        room = meet(owner, guest, server, room_version=version)
        own, other = guest.send(room, "a slip of the tongue"), owner.send(room, "what I mean")
        see(guest, room, other)
        redaction = guest.put(REDACT, room, own, unique("redact"))["event_id"]
        for reader in (owner, guest):
            see(reader, room, redaction)
            assert reader.get("rooms/{roomId}/event/{eventId}", room, own)["content"] == {}
        guest.put(REDACT, room, other, unique("redact"), status=403, errcode="M_FORBIDDEN")


def test_a_new_name_is_seen_in_common_rooms(room, alice, bob):
    for sender, reader in both(alice, bob):
        sender.put("profile/{userId}/displayname", sender.user_id, json={"displayname": "Bunny"})
        sender.put("profile/{userId}/avatar_url", sender.user_id, json={"avatar_url": "mxc://burrow.test/bunny"})
        wanted = {"membership": "join", "displayname": "Bunny", "avatar_url": "mxc://burrow.test/bunny"}
        for client in (reader, sender):
            until_state(client, room, "m.room.member", sender.user_id, wanted)
    assert state_ids(alice, room) == state_ids(bob, room)


def test_reactions_and_threads_are_seen(room, alice, bob):
    for sender, reader in both(alice, bob):
        root = reader.send(room, "what do you think?")
        see(sender, room, root)
        relation = {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "yes"}}
        see(reader, room, sender.send(room, relation, type="m.reaction"))
        found = reader.get("/_matrix/client/v1/rooms/{roomId}/relations/{eventId}", room, root)["chunk"]
        assert [event["sender"] for event in of_type(found, "m.reaction")] == [sender.user_id]


def test_both_send_at_once_and_agree(room, alice, bob):
    for number in range(10):
        alice.set_state(room, "org.example.count", {"number": number}, key="a")
        bob.set_state(room, "org.example.count", {"number": number}, key="b")
    until_state(bob, room, "org.example.count", "a", {"number": 9})
    until_state(alice, room, "org.example.count", "b", {"number": 9})
    assert state_ids(alice, room) == state_ids(bob, room)
