"""Users who do not want to be invited (spec: Invite permission)."""

import pytest

from harness.client import unique

CONFIG = "m.invite_permission_config"


def allow(user, content):
    user.put("user/{userId}/account_data/{type}", user.user_id, CONFIG, json=content)


@pytest.fixture
def hermit(bob):
    allow(bob, {"default_action": "block"})
    return bob


def invites(client, since=None):
    """The rooms to which the user is invited, as a sync tells."""
    client.since = since
    return set(client.sync().get("rooms", {}).get("invite", {}))


def test_who_wants_no_invites_is_not_invited(alice, hermit):
    room = alice.create_room(preset="private_chat")
    alice.invite(room, hermit, status=403, errcode="M_INVITE_BLOCKED")
    content = {"membership": "invite"}
    alice.set_state(room, "m.room.member", content, hermit.user_id, status=403, errcode="M_INVITE_BLOCKED")
    alice.state(room, "m.room.member", hermit.user_id, status=404)


def test_a_new_room_invites_nobody_who_does_not_want_it(alice, hermit, carol):
    body = {"preset": "private_chat", "invite": [carol.user_id, hermit.user_id]}
    alice.post("createRoom", json=body, status=403, errcode="M_INVITE_BLOCKED")
    assert invites(hermit) == set()


@pytest.mark.ours("Synapse leaves a room behind")
def test_a_new_room_that_cannot_be_is_not_there(alice, hermit, carol):
    alias = unique("burrow")
    body = {"room_alias_name": alias, "invite": [carol.user_id, hermit.user_id]}
    alice.post("createRoom", json=body, status=403, errcode="M_INVITE_BLOCKED")
    assert invites(carol) == set()
    alice.get("directory/room/{roomAlias}", f"#{alias}:{alice.server_name}", status=404)
    assert alice.get("joined_rooms")["joined_rooms"] == []


def test_invites_from_before_are_shown_no_more(alice, bob):
    room = alice.create_room(preset="private_chat")
    alice.invite(room, bob)
    assert invites(bob) == {room}
    before = bob.since
    allow(bob, {"default_action": "block"})
    assert invites(bob) == set() == invites(bob, before)
    # In the room they are as they were, and can be taken.
    assert alice.state(room, "m.room.member", bob.user_id)["membership"] == "invite"
    bob.join(room)
    assert room in bob.get("joined_rooms")["joined_rooms"]


@pytest.mark.parametrize("content", [{}, {"default_action": "allow"}, {"default_action": ["block"]}, {"block": True}])
def test_whatever_does_not_say_so_blocks_nothing(alice, hermit, content):
    """Specification: "A missing, invalid or unsupported value means that the user wants to receive invites as normal"."""
    allow(hermit, content)
    room = alice.create_room(preset="private_chat", invite=[hermit.user_id])
    assert invites(hermit) == {room}


def test_what_is_said_of_one_room_says_nothing_of_invites(alice, bob):
    own = bob.create_room()
    bob.put(
        "user/{userId}/rooms/{roomId}/account_data/{type}", bob.user_id, own, CONFIG, json={"default_action": "block"}
    )
    room = alice.create_room(preset="private_chat")
    alice.invite(room, bob)
    assert invites(bob) == {room}


def test_who_wants_no_invites_may_invite_and_join(alice, hermit):
    room = hermit.create_room(preset="private_chat")
    hermit.invite(room, alice)
    alice.join(room)
    public = alice.create_room(preset="public_chat")
    hermit.join(public)
