"""Joins to rooms for members of others, by way of this server (server-server API, "Restricted rooms")."""

import pytest

from harness.events import KEPT, id_of, redacted
from harness.participant import Participant, path
from harness.peer import signed

# As many servers are asked for one join.
SERVERS_TRIED_MAX = 10
VOUCHING = "join_authorised_via_users_server"


@pytest.fixture
def hall(alice):
    return alice.create_room(preset="public_chat", room_version="11")


def closed_room(alice, *halls, join_rule="restricted"):
    """A room for members of others alone."""
    allow = [{"type": "m.room_membership", "room_id": hall} for hall in halls]
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": join_rule, "allow": allow}}
    return alice.create_room(preset="private_chat", room_version="11", initial_state=[rules])


def ask_to_join(server, peer, room, user=None):
    return peer.send(server, "GET", path("v1/make_join/{}/{}?ver=11", room, user or peer.user()))


def test_who_is_a_member_is_vouched_for(server, alice, resident, hall):
    room = closed_room(alice, hall)
    assert ask_to_join(server, resident, room)[1]["errcode"] == "M_FORBIDDEN"
    resident.join(server, hall)
    event = resident.make_join(server, room)
    assert event["content"][VOUCHING] == alice.user_id
    status, answer = resident.send_join(server, event)
    assert status == 200 and set(answer["event"]["signatures"]) == {server.name, resident.name}
    assert alice.state(room, "m.room.member", resident.user())["membership"] == "join"


def test_where_nobody_may_invite_nobody_is_vouched_for(server, alice, resident, hall):
    room = closed_room(alice, hall)
    resident.join(server, hall)
    event = resident.make_join(server, room)
    alice.set_state(room, "m.room.power_levels", {"users": {alice.user_id: 50}, "invite": 60, "state_default": 50})
    status, answer = ask_to_join(server, resident, room)
    assert (status, answer["errcode"]) == (400, "M_UNABLE_TO_GRANT_JOIN"), answer
    # What was vouched for before is too late.
    status, answer = resident.send_join(server, event)
    assert (status, answer["errcode"]) == (400, "M_UNABLE_TO_GRANT_JOIN"), answer
    alice.state(room, "m.room.member", resident.user(), status=404)


def test_where_it_cannot_be_told_who_is_a_member_others_are_to_be_asked(server, alice, resident):
    room = closed_room(alice, "!elsewhere:nowhere.test")
    status, answer = ask_to_join(server, resident, room)
    assert (status, answer["errcode"]) == (400, "M_UNABLE_TO_AUTHORISE_JOIN"), answer


def test_where_only_some_rooms_are_known_others_are_to_be_asked(server, alice, bob, resident, hall):
    """Specification: "if the user fails all conditions" the join is refused; another server may know the other room."""
    room = closed_room(alice, hall, "!elsewhere:nowhere.test")
    status, answer = ask_to_join(server, resident, room)
    assert (status, answer["errcode"]) == (400, "M_UNABLE_TO_AUTHORISE_JOIN"), answer
    copy = resident.join(server, hall)
    event = resident.make_join(server, room)
    assert event["content"][VOUCHING] == alice.user_id
    resident.leave(server, copy)
    status, answer = resident.send_join(server, event)
    assert (status, answer["errcode"]) == (400, "M_UNABLE_TO_AUTHORISE_JOIN"), answer
    # For a user of this server there is nobody else in the room to ask.
    bob.join(room, status=403, errcode="M_FORBIDDEN")


@pytest.mark.parametrize("join_rule", ["restricted", "knock_restricted"])
@pytest.mark.parametrize("allow", [None, [], [{"type": "org.example.moon"}], [{"type": "m.room_membership"}]])
def test_where_no_room_is_named_nobody_comes_in(server, alice, bob, resident, join_rule, allow):
    """There is nothing that another server could tell better."""
    content = {"join_rule": join_rule} if allow is None else {"join_rule": join_rule, "allow": allow}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room = alice.create_room(preset="private_chat", room_version="11", initial_state=[rules])
    status, answer = ask_to_join(server, resident, room)
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    bob.join(room, status=403, errcode="M_FORBIDDEN")


def test_who_was_a_member_is_not_vouched_for(server, alice, resident, hall):
    room = closed_room(alice, hall)
    copy = resident.join(server, hall)
    event = resident.make_join(server, room)
    resident.leave(server, copy)
    status, answer = ask_to_join(server, resident, room)
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    status, answer = resident.send_join(server, event)
    assert status in (400, 403) and "event" not in answer, answer
    assert id_of(event) not in str(alice.get("rooms/{roomId}/state", room))


def knock(server, peer, room):
    """Knocks, if a template is given. Answers with status and answer."""
    user = peer.user()
    status, made = peer.send(server, "GET", path("v1/make_knock/{}/{}?ver=11", room, user))
    if status != 200:
        return status, made
    event = peer.sign({name: made["event"][name] for name in KEPT if name in made["event"]})
    return peer.send(server, "PUT", path("v1/send_knock/{}/{}", room, id_of(event)), event)


def test_who_is_no_member_may_knock_where_that_is_allowed(server, alice, resident, hall):
    """`knock_restricted`: members of the other room come in, all others ask."""
    room = closed_room(alice, hall, join_rule="knock_restricted")
    assert ask_to_join(server, resident, room)[1]["errcode"] == "M_FORBIDDEN"
    status, answer = knock(server, resident, closed_room(alice, hall))
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    status, answer = knock(server, resident, room)
    assert status == 200 and answer["knock_room_state"], answer
    assert alice.state(room, "m.room.member", resident.user())["membership"] == "knock"
    resident.join(server, hall)
    event = resident.make_join(server, room)
    assert event["content"][VOUCHING] == alice.user_id
    assert resident.send_join(server, event)[0] == 200
    assert alice.state(room, "m.room.member", resident.user())["membership"] == "join"


def vouch(owner, copy):
    """Has a server let users into a room of others as its own user there may."""
    take = owner.answer_send_join

    def make_join(values, *_):
        status, made = owner.template(*values, "join")
        event = made["event"]
        event["content"][VOUCHING] = copy.user
        event["auth_events"].append(copy.state["m.room.member", copy.user])
        return status, made

    def send_join(values, query, body):
        status, answer = take(values, query, body)
        signatures = signed(redacted(body), owner.name, owner.key)["signatures"]
        return status, {**answer, "event": {**body, "signatures": signatures}}

    owner.answer_make_join, owner.answer_send_join = make_join, send_join


def test_of_many_servers_those_are_asked_whose_users_may_vouch(server, network, alice, bob, hall):
    """However many users the others have in the room."""
    bob.join(hall)
    room = alice.create_room(preset="public_chat", room_version="11")
    powerless = [network.peer(kind=Participant) for _ in range(SERVERS_TRIED_MAX)]
    for peer in powerless:
        for word in ("one", "two"):
            peer.join(server, room, peer.user(word))
        peer.answer_make_join = lambda *_: (400, {"errcode": "M_UNABLE_TO_GRANT_JOIN", "error": "Nobody here may"})
    owner = network.peer(kind=Participant)
    copy = owner.join(server, room)
    allow = [{"type": "m.room_membership", "room_id": hall}]
    alice.set_state(room, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    power = alice.state(room, "m.room.power_levels")
    alice.set_state(room, "m.room.power_levels", {**power, "users": {owner.user(): 100}, "invite": 50})
    vouch(owner, owner.catch_up(server, copy))
    bob.join(room)
    assert alice.state(room, "m.room.member", bob.user_id)[VOUCHING] == owner.user()
    assert not any(peer.versions_asked("make_join") for peer in powerless)
    for peer in (*powerless, owner):
        peer.close()
