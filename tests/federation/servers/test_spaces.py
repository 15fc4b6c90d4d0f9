"""Spaces of ours, as users of another server are shown them. Users of ours cannot ask for any yet."""

import pytest

from harness.rooms import until_joined, via


@pytest.fixture
def there(synapse):
    return synapse


def test_a_space_of_ours_is_shown_with_what_its_members_may_see(here, alice, bob):
    space = alice.create_room(preset="public_chat", creation_content={"type": "m.space"}, name="Warrens")
    condition = {"type": "m.room_membership", "room_id": space}
    content = {"join_rule": "restricted", "allow": [condition]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    rooms = {
        "open to all": alice.create_room(preset="public_chat", name="open to all", topic="come in"),
        "for members": alice.create_room(preset="private_chat", name="for members", initial_state=[rules]),
        "closed": alice.create_room(preset="private_chat", name="closed"),
    }
    for order, room in enumerate(rooms.values()):
        alice.set_state(space, "m.space.child", {"via": [here.name], "order": f"{order}"}, key=room)
    bob.join(space, query=via(here))
    until_joined(bob, space, alice)
    # Its server is in none of the rooms, and asks ours.
    found = bob.get("/_matrix/client/v1/rooms/{roomId}/hierarchy", space)["rooms"]
    assert [(room["room_id"], room["name"]) for room in found] == [
        (space, "Warrens"),
        (rooms["open to all"], "open to all"),
        (rooms["for members"], "for members"),
    ]
    assert found[1]["topic"] == "come in" and found[1]["num_joined_members"] == 1
    assert {child["state_key"] for child in found[0]["children_state"]} == set(rooms.values())
