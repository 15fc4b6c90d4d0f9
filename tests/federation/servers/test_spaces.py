"""Spaces with rooms on both servers, as users of either are shown them."""

from harness.rooms import invited, until_joined, via

HIERARCHY = "/_matrix/client/v1/rooms/{roomId}/hierarchy"


def make_space(owner, name, **more):
    return owner.create_room(preset="public_chat", creation_content={"type": "m.space"}, name=name, **more)


def add(owner, space, room, server, order):
    owner.set_state(space, "m.space.child", {"via": [server.name], "order": order}, key=room)


def for_members(owner, space):
    """A room that the members of the space may join."""
    content = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    return owner.create_room(preset="private_chat", name="for members", initial_state=[rules])


def pages(client, space, limit):
    """All rooms of a space, asked for in pages."""
    found, query = [], {"limit": limit}
    while query:
        page = client.get(HIERARCHY, space, query=query)
        assert len(page["rooms"]) <= limit
        found += page["rooms"]
        query = page.get("next_batch") and {"limit": limit, "from": page["next_batch"]}
    return found


def check_space(owner, owners, guest, guests):
    """A space of the owner's, on whose server the most rooms are, as the guest is shown it. His server is in the space alone."""
    space = make_space(owner, "Warrens")
    inner = make_space(owner, "an inner space")
    rooms = [
        (owner.create_room(preset="public_chat", name="open to all", topic="come in"), owners),
        (for_members(owner, space), owners),
        (owner.create_room(preset="private_chat", name="closed"), owners),
        (guest.create_room(preset="public_chat", name="on the other side"), guests),
        (inner, owners),
        (owner.create_room(preset="public_chat", name="the last"), owners),
    ]
    for order, (room, server) in enumerate(rooms):
        add(owner, space, room, server, f"{order}")
    deep = owner.create_room(preset="public_chat", name="deep inside")
    add(owner, inner, deep, owners, "a")
    add(owner, inner, space, owners, "b")
    stranger = type(guest)(guest.base_url).register("stranger")
    guest.join(space, query=via(owners))
    until_joined(guest, space, owner)
    names = ["Warrens", "open to all", "for members", "on the other side", "an inner space", "deep inside", "the last"]
    for limit in (50, 3):
        found = pages(guest, space, limit)
        assert [room.get("name") for room in found] == names
    assert (found[1]["topic"], found[1]["num_joined_members"]) == ("come in", 1)
    assert {child["state_key"] for child in found[0]["children_state"]} == {room for room, _ in rooms}
    assert [child["state_key"] for child in found[4]["children_state"]] == [deep, space]
    # Who is not in the space is not shown the room of its members.
    assert [room.get("name") for room in pages(stranger, space, 50)] == [name for name in names if name != "for members"]


def test_a_space_of_ours_is_shown_there(here, there, alice, bob):
    check_space(alice, here, bob, there)


def test_a_space_there_is_shown_here(here, there, alice, bob):
    check_space(bob, there, alice, here)


def test_who_is_invited_to_a_space_there_is_shown_it(alice, bob):
    space = bob.create_room(preset="private_chat", creation_content={"type": "m.space"}, name="by invitation")
    bob.invite(space, alice)
    alice.sync_until(lambda answer: invited(answer, space))
    assert [room["name"] for room in pages(alice, space, 50)] == ["by invitation"]


def test_a_space_there_is_shown_to_who_is_not_in_it(there, alice, bob):
    # Its id says who has it.
    space = make_space(bob, "far away", room_version="11")
    room = bob.create_room(preset="public_chat", name="open to all")
    add(bob, space, room, there, "a")
    assert [shown["name"] for shown in pages(alice, space, 50)] == ["far away", "open to all"]
    private = bob.create_room(preset="private_chat", creation_content={"type": "m.space"})
    alice.get(HIERARCHY, private, status=403, errcode="M_FORBIDDEN")
