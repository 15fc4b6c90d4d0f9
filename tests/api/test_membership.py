"""Joining, inviting, leaving, forgetting, kicking, banning, knocking (spec: Room Membership)."""

import pytest

from harness.client import of_type


def membership(client, room, user):
    return client.state(room, "m.room.member", user.user_id)["membership"]


def test_join_a_public_room(alice, bob):
    room = alice.create_room(preset="public_chat")
    assert bob.post("rooms/{roomId}/join", room) == {"room_id": room}
    assert bob.get("joined_rooms")["joined_rooms"] == [room]
    assert bob.join(room) == {"room_id": room}


def test_join_with_a_reason(alice, bob):
    room = alice.create_room(preset="public_chat")
    bob.join(room, json={"reason": "for the carrots"})
    assert alice.state(room, "m.room.member", bob.user_id)["reason"] == "for the carrots"


def test_a_private_room_wants_an_invitation(alice, bob):
    room = alice.create_room(preset="private_chat")
    bob.join(room, status=403, errcode="M_FORBIDDEN")
    alice.invite(room, bob)
    bob.join(room)
    assert membership(alice, room, bob) == "join"


def test_unknown_room(alice):
    alice.join(f"!nowhere:{alice.server_name}", status=(403, 404))
    alice.join(f"#nowhere:{alice.server_name}", status=404, errcode="M_NOT_FOUND")


def test_a_malformed_room_id(alice):
    answer = alice.join("nowhere", status=400)
    assert answer["errcode"] in ("M_INVALID_PARAM", "M_UNKNOWN")


def test_an_invitation_arrives_by_sync(alice, bob):
    room = alice.create_room(preset="private_chat", name="The burrow")
    bob.sync()
    alice.invite(room, bob)
    invited = bob.sync_until(lambda answer: answer.get("rooms", {}).get("invite", {}).get(room))
    events = invited["invite_state"]["events"]
    assert {"m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"} <= {e["type"] for e in events}
    mine = [e for e in of_type(events, "m.room.member") if e["state_key"] == bob.user_id]
    assert mine[0]["sender"] == alice.user_id
    assert mine[0]["content"]["membership"] == "invite"


def shown_reason(client, room, section):
    """The reason in the user's own membership, as the next sync shows it with an invite or a knock; `None` if it shows none."""
    shown = client.sync().get("rooms", {}).get(section, {}).get(room)
    if not shown:
        return None
    events = of_type(shown[f"{section}_state"]["events"], "m.room.member")
    (reason,) = [event["content"]["reason"] for event in events if event["state_key"] == client.user_id]
    return reason


def test_a_repeated_invitation_is_told(alice, bob):
    room = alice.create_room(preset="private_chat")
    bob.sync()
    for reason in ("for the carrots", "for the company"):
        alice.post("rooms/{roomId}/invite", room, json={"user_id": bob.user_id, "reason": reason})
        assert shown_reason(bob, room, "invite") == reason
    assert shown_reason(bob, room, "invite") is None


def test_a_repeated_knock_is_told(alice, bob):
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.create_room(preset="private_chat", initial_state=[rules])
    bob.sync()
    for reason in ("it rains", "it snows"):
        bob.post("knock/{roomIdOrAlias}", room, json={"reason": reason})
        assert shown_reason(bob, room, "knock") == reason
    assert shown_reason(bob, room, "knock") is None


def test_an_invitation_by_the_rooms_state(alice, bob):
    room = alice.create_room(preset="private_chat")
    content = {"membership": "invite", "reason": "for the carrots", "is_direct": True}
    event = alice.set_state(room, "m.room.member", content, bob.user_id)
    assert alice.get("rooms/{roomId}/event/{eventId}", room, event)["content"] == content
    invited = bob.sync_until(lambda answer: answer.get("rooms", {}).get("invite", {}).get(room))
    (mine,) = [e for e in invited["invite_state"]["events"] if e["state_key"] == bob.user_id]
    assert mine["content"] == content
    bob.join(room)


def test_who_may_invite(alice, bob, carol):
    room = alice.create_room(preset="private_chat")
    bob.invite(room, carol, status=403, errcode="M_FORBIDDEN")
    alice.set_state(room, "m.room.power_levels", {**alice.state(room, "m.room.power_levels"), "invite": 50})
    alice.invite(room, bob)
    bob.join(room)
    bob.invite(room, carol, status=403, errcode="M_FORBIDDEN")


def test_inviting_a_member_is_refused(alice, bob, room):
    alice.invite(room, bob, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse fails inside on a user ID that is a number")
@pytest.mark.parametrize("body", [{}, {"user_id": 7}, {"user_id": "nobody"}])
def test_malformed_invitations(alice, body):
    room = alice.create_room()
    answer = alice.post("rooms/{roomId}/invite", room, json=body, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_UNKNOWN")


def test_reject_an_invitation(alice, bob):
    room = alice.create_room(preset="private_chat", invite=[bob.user_id])
    bob.sync()
    bob.leave(room)
    assert membership(alice, room, bob) == "leave"
    assert room not in bob.sync().get("rooms", {}).get("invite", {})
    bob.join(room, status=403, errcode="M_FORBIDDEN")


def test_leave(alice, bob, room):
    bob.sync()
    bob.leave(room, json={"reason": "hungry"})
    assert bob.get("joined_rooms")["joined_rooms"] == []
    left = bob.sync_until(lambda answer: answer.get("rooms", {}).get("leave", {}).get(room))
    assert left["timeline"]["events"][-1]["content"] == {"membership": "leave", "reason": "hungry"}
    answer = bob.send(room, "still there?", status=403)
    assert answer["errcode"] == "M_FORBIDDEN"
    event = alice.send(room, "he cannot see this")
    bob.get("rooms/{roomId}/event/{eventId}", room, event, status=404, errcode="M_NOT_FOUND")


def test_forget(alice, bob, room):
    answer = bob.post("rooms/{roomId}/forget", room, status=400)
    assert answer["errcode"] == "M_UNKNOWN"
    bob.leave(room)
    bob.messages(room)
    assert bob.post("rooms/{roomId}/forget", room) == {}
    assert bob.get("rooms/{roomId}/messages", room, query={"dir": "b"}, status=(403, 404))["errcode"]


def test_who_never_was_in_a_room_has_nothing_to_forget(alice, carol, room):
    for nothing in (room, f"!nowhere:{carol.server_name}"):
        assert carol.post("rooms/{roomId}/forget", nothing) == {}
    alice.invite(room, carol)
    carol.post("rooms/{roomId}/forget", room, status=400, errcode="M_UNKNOWN")
    carol.join(room)


def test_kick(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    body = {"user_id": bob.user_id, "reason": "too loud"}
    carol.post("rooms/{roomId}/kick", room, json=body, status=403, errcode="M_FORBIDDEN")
    alice.post("rooms/{roomId}/kick", room, json=body)
    member = alice.state(room, "m.room.member", bob.user_id)
    assert (member["membership"], member["reason"]) == ("leave", "too loud")
    bob.join(room, status=403, errcode="M_FORBIDDEN")


def test_kick_of_someone_who_is_not_there(alice, bob):
    room = alice.create_room()
    answer = alice.post("rooms/{roomId}/kick", room, json={"user_id": bob.user_id}, status=403)
    assert answer["errcode"] == "M_FORBIDDEN"


def test_ban_and_unban(alice, bob):
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    body = {"user_id": bob.user_id, "reason": "digging"}
    bob.post("rooms/{roomId}/ban", room, json={"user_id": alice.user_id}, status=403, errcode="M_FORBIDDEN")
    alice.post("rooms/{roomId}/ban", room, json=body)
    assert membership(alice, room, bob) == "ban"
    bob.join(room, status=403)
    alice.invite(room, bob, status=403)
    alice.post("rooms/{roomId}/unban", room, json={"user_id": bob.user_id})
    assert membership(alice, room, bob) == "leave"
    bob.join(room)


def test_unban_of_someone_who_is_not_banned(alice, bob, room):
    answer = alice.post("rooms/{roomId}/unban", room, json={"user_id": bob.user_id}, status=403)
    assert answer["errcode"] in ("M_FORBIDDEN", "M_BAD_STATE")


def knockable(alice):
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    return alice.create_room(preset="private_chat", initial_state=[rule], name="Knock first")


def test_knock_and_be_let_in(alice, bob):
    room = knockable(alice)
    bob.sync()
    assert bob.post("knock/{roomIdOrAlias}", room, json={"reason": "hungry"}) == {"room_id": room}
    assert alice.state(room, "m.room.member", bob.user_id)["membership"] == "knock"
    knocked = bob.sync_until(lambda answer: answer.get("rooms", {}).get("knock", {}).get(room))
    assert "m.room.join_rules" in {event["type"] for event in knocked["knock_state"]["events"]}
    alice.invite(room, bob)
    bob.join(room)


def test_knock_again_with_another_reason(alice, bob):
    room = knockable(alice)
    for reason in ("hungry", "hungry", "cold"):
        bob.post("knock/{roomIdOrAlias}", room, json={"reason": reason})
        member = alice.state(room, "m.room.member", bob.user_id)
        assert (member["membership"], member["reason"]) == ("knock", reason)
    members = of_type(alice.messages(room)["chunk"], "m.room.member")
    reasons = [event["content"]["reason"] for event in members if event["state_key"] == bob.user_id]
    assert reasons == ["cold", "hungry"]


def test_take_a_knock_back(alice, bob):
    room = knockable(alice)
    bob.post("knock/{roomIdOrAlias}", room)
    bob.leave(room)
    assert membership(alice, room, bob) == "leave"


def test_no_knocking_where_the_rule_is_another(alice, bob):
    room = alice.create_room(preset="private_chat")
    bob.post("knock/{roomIdOrAlias}", room, status=403, errcode="M_FORBIDDEN")


def test_restricted_rooms_let_members_of_another_room_in(alice, bob, carol):
    space = alice.create_room(preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": space}]
    rule = {"join_rule": "restricted", "allow": allow}
    room = alice.create_room(initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rule}])
    bob.join(space)
    bob.join(room)
    assert alice.state(room, "m.room.member", bob.user_id)["join_authorised_via_users_server"] == alice.user_id
    carol.join(room, status=403, errcode="M_FORBIDDEN")


def test_joined_members(alice, bob):
    alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "Alice"})
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    shown = bob.get("rooms/{roomId}/joined_members", room)["joined"]
    assert set(shown) == {alice.user_id, bob.user_id}
    assert shown[alice.user_id]["display_name"] == "Alice"


def test_members_are_for_members(alice, bob, carol, room):
    carol.get("rooms/{roomId}/joined_members", room, status=403, errcode="M_FORBIDDEN")
    carol.get("rooms/{roomId}/members", room, status=403, errcode="M_FORBIDDEN")


def test_members_by_membership_and_at_a_point(alice, bob, carol, room):
    before = alice.sync()["next_batch"]
    alice.invite(room, carol)

    def ids(**query):
        chunk = alice.get("rooms/{roomId}/members", room, query=query)["chunk"]
        return {event["state_key"] for event in chunk}

    everyone = {alice.user_id, bob.user_id, carol.user_id}
    assert ids() == everyone
    assert ids(membership="join") == {alice.user_id, bob.user_id}
    assert ids(not_membership="join") == {carol.user_id}
    assert ids(at=before) == {alice.user_id, bob.user_id}


def test_members_at_a_point_that_the_room_hides(alice, bob, carol):
    visibility = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = alice.create_room(preset="public_chat", initial_state=[visibility])
    carol.join(room)
    alice.post("rooms/{roomId}/kick", room, json={"user_id": carol.user_id, "reason": "not for Bob"})
    hidden = alice.sync()["next_batch"]
    carol.join(room)
    bob.join(room)

    def ids(at):
        chunk = bob.get("rooms/{roomId}/members", room, query={"at": at})["chunk"]
        return {event["state_key"] for event in chunk}

    bob.get("rooms/{roomId}/members", room, query={"at": hidden}, status=403, errcode="M_FORBIDDEN")
    # What a sync gives leads to members, as clients expect that load these when somebody looks at them.
    answer = bob.sync(filter='{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}')
    timeline = answer["rooms"]["join"][room]["timeline"]
    assert timeline["events"][0]["state_key"] == bob.user_id
    assert ids(answer["next_batch"]) == {alice.user_id, bob.user_id, carol.user_id}
    assert ids(timeline["prev_batch"]) == {alice.user_id, carol.user_id}


def test_nobody_enters_or_leaves_what_is_closed_to_them(carol, room):
    carol.post("rooms/{roomId}/join", room, status=403, errcode="M_FORBIDDEN")
    carol.leave(room, status=403, errcode="M_FORBIDDEN")
    carol.leave(f"!nowhere:{carol.server_name}", status=(403, 404))
