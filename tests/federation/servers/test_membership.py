"""Invites, knocks, leaving and restricted rooms across servers."""

from harness.client import joined
from harness.rooms import invited, joined_members, knocked, left, members, state_ids, until_joined, until_membership


def shown_name(invite):
    """The room's name in what an invite shows of it."""
    events = invite["invite_state"]["events"]
    return [event["content"]["name"] for event in events if event["type"] == "m.room.name"]


def test_they_invite_our_user(alice, bob):
    room = bob.create_room(preset="private_chat", name="The burrow")
    bob.invite(room, alice)
    invite = alice.sync_until(lambda answer: invited(answer, room))
    assert shown_name(invite) == ["The burrow"]
    alice.join(room)
    alice.sync_until(lambda answer: joined(answer, room))
    until_joined(alice, room, bob)
    assert state_ids(alice, room) == state_ids(bob, room)


def test_we_invite_their_user(alice, bob):
    room = alice.create_room(preset="private_chat", name="The burrow")
    alice.invite(room, bob)
    assert bob.user_id in members(alice, room, "invite")
    invite = bob.sync_until(lambda answer: invited(answer, room))
    assert shown_name(invite) == ["The burrow"]
    bob.join(room)
    until_joined(bob, room, alice)
    assert joined_members(bob, room) == joined_members(alice, room) == {alice.user_id, bob.user_id}


def test_a_direct_chat_begins_with_an_invite(alice, bob):
    room = alice.create_room(preset="trusted_private_chat", is_direct=True, invite=[bob.user_id])
    invite = bob.sync_until(lambda answer: invited(answer, room))
    (own,) = [event for event in invite["invite_state"]["events"] if event["state_key"] == bob.user_id]
    assert own["content"]["is_direct"] is True
    bob.join(room)
    until_joined(alice, room, bob)
    assert alice.state(room, "m.room.power_levels")["users"].get(bob.user_id) in (100, None)


def test_our_user_declines_their_invite(alice, bob):
    room = bob.create_room(preset="private_chat")
    bob.invite(room, alice)
    alice.sync_until(lambda answer: invited(answer, room))
    alice.leave(room)
    alice.sync_until(lambda answer: left(answer, room))
    until_membership(bob, room, "leave", alice)


def test_their_user_declines_our_invite(alice, bob):
    room = alice.create_room(preset="private_chat")
    alice.invite(room, bob)
    bob.sync_until(lambda answer: invited(answer, room))
    bob.leave(room)
    until_membership(alice, room, "leave", bob)


def test_an_invite_is_declined_though_its_server_is_gone(here, authority, tmp_path):
    from harness.federated import Warren

    alice = here.client(here.base_url).register("alice")
    with Warren(tmp_path / "gone", authority) as gone:
        zoe = gone.client(gone.base_url).register("zoe")
        room = zoe.create_room(preset="private_chat")
        zoe.invite(room, alice)
        alice.sync_until(lambda answer: invited(answer, room))
    alice.leave(room)
    answer = alice.sync(timeout=0)
    assert left(answer, room) is not None and not invited(answer, room)


def test_our_user_knocks_at_their_room(there, alice, bob):
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = bob.create_room(room_version="10", preset="private_chat", name="The burrow", initial_state=[rules])
    alice.post("knock/{roomIdOrAlias}", room, query={"via": there.name, "server_name": there.name})
    shown = alice.sync_until(lambda answer: knocked(answer, room))
    names = [event["content"]["name"] for event in shown["knock_state"]["events"] if event["type"] == "m.room.name"]
    assert names == ["The burrow"]
    until_membership(bob, room, "knock", alice)
    bob.invite(room, alice)
    alice.sync_until(lambda answer: invited(answer, room))
    alice.join(room)
    until_joined(bob, room, alice)


def test_their_user_knocks_at_our_room(here, alice, bob):
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.create_room(room_version="10", preset="private_chat", initial_state=[rules])
    bob.post("knock/{roomIdOrAlias}", room, query={"via": here.name, "server_name": here.name})
    until_membership(alice, room, "knock", bob)
    alice.invite(room, bob)
    bob.sync_until(lambda answer: invited(answer, room))
    bob.join(room)
    until_joined(alice, room, bob)


def restricted(owner, server):
    """A room that members of another may join, and that other one."""
    hall = owner.create_room(preset="public_chat", room_version="10")
    condition = {"type": "m.room_membership", "room_id": hall}
    content = {"join_rule": "restricted", "allow": [condition]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    return hall, owner.create_room(preset="private_chat", room_version="10", initial_state=[rules])


def test_members_of_a_room_may_join_another(here, there, alice, bob):
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        via = {"via": server.name, "server_name": server.name}
        hall, room = restricted(owner, server)
        guest.join(room, query=via, status=403)
        guest.join(hall, query=via)
        guest.join(room, query=via)
        assert guest.user_id in joined_members(owner, room)
        joining = guest.state(room, "m.room.member", guest.user_id)
        assert joining["join_authorised_via_users_server"] == owner.user_id


def test_they_kick_and_ban_our_user(there, alice, bob):
    via = {"via": there.name, "server_name": there.name}
    room = bob.create_room(preset="public_chat")
    alice.join(room, query=via)
    alice.sync()
    bob.post("rooms/{roomId}/kick", room, json={"user_id": alice.user_id, "reason": "out"})
    alice.sync_until(lambda answer: left(answer, room))
    alice.join(room, query=via)
    alice.sync_until(lambda answer: joined(answer, room))
    bob.post("rooms/{roomId}/ban", room, json={"user_id": alice.user_id})
    alice.sync_until(lambda answer: left(answer, room))
    alice.join(room, query=via, status=403, errcode="M_FORBIDDEN")
