"""Invites, knocks, leaving and restricted rooms across servers."""

import pytest

from harness.client import address, joined, unique
from harness.federated import Warren
from harness.rooms import (
    entrust,
    invited,
    joined_members,
    knocked,
    left,
    members,
    see,
    state_ids,
    until_joined,
    until_membership,
    until_state,
    via,
)
from harness.waiting import until


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


def test_we_invite_their_user_by_the_rooms_state(alice, bob):
    room = alice.create_room(preset="private_chat", name="The burrow")
    content = {"membership": "invite", "reason": "it rains", "is_direct": True}
    alice.set_state(room, "m.room.member", content, bob.user_id)
    assert bob.user_id in members(alice, room, "invite")
    invite = bob.sync_until(lambda answer: invited(answer, room))
    (own,) = [event for event in invite["invite_state"]["events"] if event["state_key"] == bob.user_id]
    assert own["content"] == content
    bob.join(room)
    until_joined(alice, room, bob)


def test_a_direct_chat_begins_with_an_invite(alice, bob):
    room = alice.create_room(preset="trusted_private_chat", is_direct=True, invite=[bob.user_id])
    invite = bob.sync_until(lambda answer: invited(answer, room))
    (own,) = [event for event in invite["invite_state"]["events"] if event["state_key"] == bob.user_id]
    assert own["content"]["is_direct"] is True
    bob.join(room)
    until_joined(alice, room, bob)
    # Both may do all, whichever way the room's version says so.
    for doer, other in ((alice, bob), (bob, alice)):
        power = alice.state(room, "m.room.power_levels")
        power["events"] = {unique("org.example.event"): 100}
        doer.set_state(room, "m.room.power_levels", power)
        until_state(other, room, "m.room.power_levels", "", power)


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
    bob.sync_until(lambda answer: left(answer, room) is not None)
    until_membership(alice, room, "leave", bob)


def test_an_invite_is_taken_back(here, there, alice, bob):
    for inviter, guest, server in [(alice, bob, here), (bob, alice, there)]:
        room = inviter.create_room(preset="private_chat")
        inviter.invite(room, guest)
        guest.sync_until(lambda answer: invited(answer, room))
        inviter.post("rooms/{roomId}/kick", room, json={"user_id": guest.user_id})
        guest.sync_until(lambda answer: left(answer, room) is not None)
        assert guest.user_id in members(inviter, room, "leave")
        guest.join(room, query=via(server), status=403, errcode="M_FORBIDDEN")


def test_an_invite_is_taken_back_after_the_last_of_us_has_left(here, alice, bob):
    """It came with the room's events, which nobody sends us any more."""
    amy = here.client(here.base_url).register("amy")
    room = bob.create_room(preset="private_chat")
    bob.invite(room, alice)
    alice.sync_until(lambda answer: invited(answer, room))
    alice.join(room)
    until_joined(alice, room, bob)
    bob.invite(room, amy)
    amy.sync_until(lambda answer: invited(answer, room))
    alice.leave(room)
    until_membership(bob, room, "leave", alice)
    bob.post("rooms/{roomId}/kick", room, json={"user_id": amy.user_id})
    amy.sync_until(lambda answer: left(answer, room) is not None)
    amy.since = None
    assert not invited(amy.sync(), room)
    # Asked again, she comes in.
    bob.invite(room, amy)
    amy.sync_until(lambda answer: invited(answer, room))
    amy.join(room)
    until_joined(bob, room, amy)


def test_an_invite_is_declined_though_its_server_is_gone(here, authority, tmp_path):
    alice = here.client(here.base_url).register("alice")
    with Warren(tmp_path / "gone", authority) as gone:
        zoe = gone.client(gone.base_url).register("zoe")
        room = zoe.create_room(preset="private_chat")
        zoe.invite(room, alice)
        alice.sync_until(lambda answer: invited(answer, room))
    alice.leave(room)
    answer = alice.sync(timeout=0)
    assert left(answer, room) is not None and not invited(answer, room)


def test_a_declined_invite_stays_declined_when_another_of_us_comes_in(here, authority, tmp_path):
    """Nobody of the room could be told of it; it is told once that can be."""
    alice, amy = (here.client(here.base_url).register(name) for name in ("alice", "amy"))
    with Warren(tmp_path / "away", authority) as away:
        zoe = away.client(away.base_url).register("zoe")
        room = zoe.create_room(preset="private_chat")
        for guest in (alice, amy):
            zoe.invite(room, guest)
            guest.sync_until(lambda answer: invited(answer, room))
        assert away.stop() == 0, away.log_tail()
        amy.leave(room)
        amy.sync_until(lambda answer: left(answer, room) is not None)
        away.start()
        path = address("join/{roomIdOrAlias}", room)
        until(lambda: alice.send_raw("POST", path, json={}).status_code == 200)
        until_membership(zoe, room, "leave", amy)
        until_membership(alice, room, "leave", amy)
        assert not invited(amy.sync(), room)
        amy.since = None
        assert not invited(amy.sync(), room)


@pytest.fixture(params=["7", "12"])
def version(request):
    """The first one with knocks, and the last."""
    return request.param


@pytest.fixture(params=["our user knocks", "their user knocks"])
def knock(request, here, there, alice, bob, version):
    """A room at which somebody has knocked, who is in it and who knocks, after both have seen it."""
    owner, guest, server = (bob, alice, there) if request.param == "our user knocks" else (alice, bob, here)
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = owner.create_room(room_version=version, preset="private_chat", name="The burrow", initial_state=[rules])
    guest.post("knock/{roomIdOrAlias}", room, query=via(server), json={"reason": "it rains"})
    shown = guest.sync_until(lambda answer: knocked(answer, room))
    names = [event["content"]["name"] for event in shown["knock_state"]["events"] if event["type"] == "m.room.name"]
    assert names == ["The burrow"]
    until_membership(owner, room, "knock", guest)
    assert owner.state(room, "m.room.member", guest.user_id)["reason"] == "it rains"
    return room, owner, guest


def test_who_knocks_is_let_in(knock):
    room, owner, guest = knock
    owner.invite(room, guest)
    guest.sync_until(lambda answer: invited(answer, room))
    guest.join(room)
    until_joined(owner, room, guest)
    until_joined(guest, room, owner)
    assert state_ids(owner, room) == state_ids(guest, room)
    see(owner, room, guest.send(room, "thank you"))


def test_a_knock_is_taken_back(knock, synapse):
    room, owner, guest = knock
    guest.leave(room)
    guest.sync_until(lambda answer: left(answer, room) is not None)
    # Synapse ends a knock for its own user alone.
    if guest.server_name != synapse.name:
        until_membership(owner, room, "leave", guest)


def test_who_knocks_is_turned_away(knock, synapse):
    room, owner, guest = knock
    owner.post("rooms/{roomId}/kick", room, json={"user_id": guest.user_id, "reason": "no"})
    # Synapse neither tells another server of it, nor its own user when it is told.
    if synapse.name not in (owner.server_name, guest.server_name):
        guest.sync_until(lambda answer: left(answer, room) is not None)
    assert guest.user_id in members(owner, room, "leave")
    guest.join(room, query={"via": owner.server_name, "server_name": owner.server_name}, status=403, errcode="M_FORBIDDEN")


def test_who_wants_no_invites_is_not_invited(alice, bob):
    for inviter, hermit in [(alice, bob), (bob, alice)]:
        content, path = {"default_action": "block"}, "user/{userId}/account_data/{type}"
        hermit.put(path, hermit.user_id, "m.invite_permission_config", json=content)
        room = inviter.create_room(preset="private_chat")
        inviter.invite(room, hermit, status=403, errcode="M_INVITE_BLOCKED")
        assert hermit.user_id not in members(inviter, room, "invite")


def restricted(owner, join_rule, version):
    """A room that members of another may join, and that other one."""
    hall = owner.create_room(preset="public_chat", room_version=version)
    condition = {"type": "m.room_membership", "room_id": hall}
    content = {"join_rule": join_rule, "allow": [condition]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    return hall, owner.create_room(preset="private_chat", room_version=version, initial_state=[rules])


# The first versions with each. In the last one who lets in is the creator, of whom the levels say nothing.
@pytest.mark.parametrize(
    ("join_rule", "version"),
    [("restricted", "8"), ("restricted", "12"), ("knock_restricted", "10"), ("knock_restricted", "12")],
)
def test_members_of_a_room_may_join_another(here, there, alice, bob, join_rule, version):
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        hall, room = restricted(owner, join_rule, version)
        guest.join(room, query=via(server), status=403)
        if join_rule == "knock_restricted":
            guest.post("knock/{roomIdOrAlias}", room, query=via(server))
            until_membership(owner, room, "knock", guest)
        guest.join(hall, query=via(server))
        guest.join(room, query=via(server))
        assert guest.user_id in joined_members(owner, room)
        until_joined(guest, room, owner)
        assert state_ids(guest, room) == state_ids(owner, room)
        joining = guest.state(room, "m.room.member", guest.user_id)
        assert joining["join_authorised_via_users_server"] == owner.user_id


def test_kicks_and_bans_go_both_ways(here, there, alice, bob):
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        room = owner.create_room(preset="public_chat")
        for act, membership in [("kick", "leave"), ("ban", "ban")]:
            guest.join(room, query=via(server))
            guest.sync_until(lambda answer: joined(answer, room))
            owner.post("rooms/{roomId}/" + act, room, json={"user_id": guest.user_id, "reason": act})
            told = guest.sync_until(lambda answer: left(answer, room))["timeline"]["events"][-1]
            assert (told["sender"], told["state_key"]) == (owner.user_id, guest.user_id)
            assert (told["content"]["membership"], told["content"]["reason"]) == (membership, act)
            see(owner, room, told["event_id"])
            assert guest.user_id in members(owner, room, membership)
        guest.join(room, query=via(server), status=403, errcode="M_FORBIDDEN")


def test_our_guests_leave_a_room_that_they_close(here, alice, bob):
    nobody = here.client(here.base_url)
    guest = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    opened = {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}
    room = alice.create_room(preset="public_chat", room_version="10", initial_state=[opened])
    guest.join(room)
    bob.join(room, query=via(here))
    until_joined(bob, room, alice, guest)
    entrust(alice, room, bob)
    bob.set_state(room, "m.room.guest_access", {"guest_access": "forbidden"})
    for user in (alice, bob):
        until_membership(user, room, "leave", guest)
        assert joined_members(user, room) == {alice.user_id, bob.user_id}
