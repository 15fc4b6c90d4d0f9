"""A room is upgraded to another version: members on other servers are told of the new one, and follow."""

import pytest

from harness.client import bodies, of_type, timeline, unique
from harness.rooms import entrust, joined_members, see, state_ids, until_joined, until_state, via


# In the last one a room is called after its creation, and its creator stands above the levels.
@pytest.mark.parametrize("new_version", ["11", "12"])
def test_members_follow_the_tombstone(here, there, alice, bob, new_version):
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        room = owner.create_room(preset="public_chat", room_version="9", name="The burrow")
        owner.send(room, "it is getting narrow")
        guest.join(room, query=via(server))
        until_joined(guest, room, owner)
        guest.sync()
        made = owner.post("rooms/{roomId}/upgrade", room, json={"new_version": new_version})["replacement_room"]
        (tombstone,) = guest.sync_until(lambda answer: of_type(timeline(answer, room), "m.room.tombstone"))
        assert tombstone["content"]["replacement_room"] == made
        guest.join(made, query=via(server))
        until_joined(guest, made, owner)
        assert state_ids(owner, made) == state_ids(guest, made)
        creation = guest.state(made, "m.room.create")
        assert (creation["room_version"], creation["predecessor"]["room_id"]) == (new_version, room)
        powers = [user.state(made, "m.room.power_levels") for user in (owner, guest)]
        assert powers[0] == powers[1] and (owner.user_id in powers[0].get("users", {})) == (new_version == "11")
        assert guest.state(made, "m.room.name") == {"name": "The burrow"}
        assert joined_members(owner, made) == {owner.user_id, guest.user_id}
        for sender, reader in [(owner, guest), (guest, owner)]:
            see(reader, made, sender.send(made, "more room here"))
        owner.set_state(made, "m.room.topic", {"topic": "roomy"})
        until_state(guest, made, "m.room.topic", "", {"topic": "roomy"})
        # The old room is closed to those who only talk, and can still be read.
        guest.send(room, "anybody?", status=403, errcode="M_FORBIDDEN")
        assert "it is getting narrow" in bodies(guest.messages(room, limit=50)["chunk"])


def test_settings_follow_who_joins_by_way_of_another_server(there, alice, bob):
    room = bob.create_room(preset="public_chat", room_version="9")
    alice.join(room, query=via(there))
    until_joined(alice, room, bob)
    alice.put("user/{userId}/rooms/{roomId}/tags/{tag}", alice.user_id, room, "m.favourite", json={"order": 0.5})
    alice.put("user/{userId}/account_data/{type}", alice.user_id, "m.direct", json={bob.user_id: [room]})
    alice.put("pushrules/global/room/{ruleId}", room, json={"actions": []})
    made = bob.post("rooms/{roomId}/upgrade", room, json={"new_version": "11"})["replacement_room"]
    alice.sync_until(lambda answer: of_type(timeline(answer, room), "m.room.tombstone"))
    alice.join(made, query=via(there))
    tags = alice.get("user/{userId}/rooms/{roomId}/tags", alice.user_id, made)["tags"]
    assert tags == {"m.favourite": {"order": 0.5}}
    direct = alice.get("user/{userId}/account_data/{type}", alice.user_id, "m.direct")
    assert direct == {bob.user_id: [room, made]}
    assert made in [rule["rule_id"] for rule in alice.get("pushrules/")["global"]["room"]]


def test_what_a_server_calls_a_room_leads_to_the_new_one(there, alice, bob):
    """Specification: the server "moves any local aliases to the new room", of which each server has its own."""
    room = bob.create_room(preset="public_chat", room_version="9")
    alice.join(room, query=via(there))
    until_joined(alice, room, bob)
    entrust(bob, room, alice, 100)
    alias = f"#{unique('burrow')}:{alice.server_name}"
    alice.put("directory/room/{roomAlias}", alias, json={"room_id": room})
    alice.put("directory/list/room/{roomId}", room, json={"visibility": "public"})
    made = bob.post("rooms/{roomId}/upgrade", room, json={"new_version": "11"})["replacement_room"]
    alice.sync_until(lambda answer: of_type(timeline(answer, room), "m.room.tombstone"))
    assert alice.get("directory/room/{roomAlias}", alias)["room_id"] == room, "nobody from here is in the new one"
    alice.join(made, query=via(there))
    assert alice.get("directory/room/{roomAlias}", alias)["room_id"] == made
    for listed, visibility in [(made, "public"), (room, "private")]:
        assert alice.get("directory/list/room/{roomId}", listed)["visibility"] == visibility
