"""Invites of other servers, and of ours to their users: what they show of a room, what they say, and users who want none."""

import json
import threading
import time

import pytest
import requests

from harness.client import Client, unique
from harness.deliveries import room_with
from harness.events import Copy, id_of
from harness.participant import SECONDS_MAX, Participant, path
from harness.peer import Key, base64_of
from harness.rooms import invited, left, members, see, via
from harness.server import sound
from harness.waiting import until


def room_of_version_12(resident):
    """A room that is called after its create event, with that event and one that names the room."""
    create = resident.begin("12")
    copy = Copy("!" + id_of(create)[1:], {}, [id_of(create)], 1, resident.user())
    resident.next(copy, "m.room.member", {"membership": "join"}, state_key=copy.user)
    name = resident.next(copy, "m.room.name", {"name": "The burrow"}, state_key="")
    return copy, create, name


def invite(server, resident, copy, user, shown, version="12"):
    event = resident.event(copy, "m.room.member", {"membership": "invite"}, state_key=user.user_id)
    more = {"room_version": version, "invite_room_state": shown}
    return resident.send_invite(server, copy.room_id, event, **more)


def names_shown(answer, room_id):
    return [event["content"].get("name") for event in invited(answer, room_id)["invite_state"]["events"]]


def test_what_an_invite_shows_of_a_room_is_rightly_signed(server, alice, resident):
    """Specification: servers "SHOULD return M_INVALID_PARAM if" an event of `invite_room_state` fails a check, or the create event
    is missing, in rooms of version 12."""
    copy, create, name = room_of_version_12(resident)
    stranger = Key(resident.key.id.removeprefix("ed25519:"))
    bare = {member: value for member, value in name.items() if member != "signatures"}
    for wrong in (resident.sign(bare, stranger), bare, {**name, "signatures": create["signatures"]}):
        for first in (create, stripped(create)):
            status, answer = invite(server, resident, copy, alice, [first, wrong])
            assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM"), answer
    for shown in ([], [name], [stripped(name)]):
        status, answer = invite(server, resident, copy, alice, shown)
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM"), "the create event is missing"
    alice.sync()
    status, answer = invite(server, resident, copy, alice, [create, name])
    assert status == 200 and server.name in answer["event"]["signatures"], answer
    answer = alice.sync_until(lambda answer: invited(answer, copy.room_id) and answer)
    assert "The burrow" in names_shown(answer, copy.room_id)


@pytest.mark.parametrize("is_create_theirs", [False, True])
def test_an_invite_shows_a_room_without_what_nobody_can_check(server, alice, resident, away, is_create_theirs):
    """A server that is gone for good would else keep all others out. The create event is told by the room's id; what is wrongly
    signed is refused all the same."""
    create = (away if is_create_theirs else resident).begin("12")
    copy = Copy("!" + id_of(create)[1:], {}, [id_of(create)], 1, resident.user())
    resident.next(copy, "m.room.member", {"membership": "join"}, state_key=copy.user)
    theirs = away.event(copy, "m.room.topic", {"topic": "Theirs"}, sender=away.user(), state_key="")
    name = resident.next(copy, "m.room.name", {"name": "The burrow"}, state_key="")
    wrong = {**name, "signatures": {resident.name: {resident.key.id: base64_of(bytes(64))}}}
    for shown in ([create, theirs, wrong], [theirs, name]):
        status, answer = invite(server, resident, copy, alice, shown)
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM"), answer
    alice.sync()
    status, answer = invite(server, resident, copy, alice, [create, theirs, name])
    assert status == 200 and server.name in answer["event"]["signatures"], answer
    answer = alice.sync_until(lambda answer: invited(answer, copy.room_id) and answer)
    kinds = {event["type"] for event in invited(answer, copy.room_id)["invite_state"]["events"]}
    assert kinds == {"m.room.create", "m.room.name", "m.room.member"}


def stripped(event):
    return {member: event[member] for member in ("type", "state_key", "sender", "content")}


@pytest.mark.parametrize("is_create_whole", [True, False])
def test_an_invite_may_show_stripped_events(server, alice, resident, is_create_whole):
    """They are to be whole in rooms of version 12. Synapse before 1.163 strips them, and later ones take that until June 2027
    (element-hq/synapse#19943)."""
    copy, create, name = room_of_version_12(resident)
    alice.sync()
    shown = [create if is_create_whole else stripped(create), stripped(name)]
    status, answer = invite(server, resident, copy, alice, shown)
    assert status == 200 and server.name in answer["event"]["signatures"], answer
    answer = alice.sync_until(lambda answer: invited(answer, copy.room_id) and answer)
    assert "The burrow" in names_shown(answer, copy.room_id)


def block_invites(user, action="block"):
    user.put("user/{userId}/account_data/{type}", user.user_id, "m.invite_permission_config", json={"default_action": action})


def refused(response):
    status, answer = response
    return (status, answer["errcode"]) == (403, "M_INVITE_BLOCKED") and "event" not in answer


@pytest.fixture
def copy(resident):
    return resident.create("invite")


def test_who_wants_no_invites_gets_none(server, alice, resident, copy):
    """In neither version; and an invite from before is not shown any more."""
    before = resident.create("invite")
    assert resident.invite(server, before, alice.user_id)[0] == 200
    alice.sync_until(lambda answer: invited(answer, before.room_id))
    block_invites(alice)
    assert refused(resident.invite(server, copy, alice.user_id))
    old = resident.old_invite(f"!{unique('room')}:{resident.name}", alice.user_id)
    target = path("v1/invite/{}/{}", old["room_id"], old["event_id"])
    assert refused(resident.send(server, "PUT", target, old))
    for since in (alice.since, None):
        alice.since = since
        assert "invite" not in alice.sync().get("rooms", {})
    block_invites(alice, "something new")
    assert resident.invite(server, copy, alice.user_id)[0] == 200
    alice.sync_until(lambda answer: invited(answer, copy.room_id))


def test_an_invite_that_comes_with_a_rooms_events_is_not_shown(server, alice, bob, resident):
    """Nobody asks whether it may be made where the room is known; it stands in the room all the same."""
    room = bob.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room)
    block_invites(alice)
    alice.sync()
    bob.set_state(room, "m.room.power_levels", {"users": {bob.user_id: 100}, "invite": 0})
    resident.catch_up(server, copy)
    event = resident.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    assert refused(resident.send_invite(server, room, event))
    assert resident.transact(server, [event]) == {id_of(event): {}}
    assert alice.user_id in members(bob, room, "invite")
    for since in (alice.since, None):
        alice.since = since
        assert "invite" not in alice.sync().get("rooms", {})


@pytest.mark.parametrize("room_version", ["1", None])
def test_an_invite_is_declined_though_its_server_tells_an_older_version(server, alice, resident, copy, room_version):
    """Events with ids of their own are none of a room of version 11; without a version it is to be taken for such a room."""
    assert resident.invite(server, copy, alice.user_id)[0] == 200
    alice.sync_until(lambda answer: invited(answer, copy.room_id))

    def make_leave(values, *_):
        event = resident.template(*values, "leave")[1]["event"]
        references = [[f"${unique('event')}:{resident.name}", {"sha256": base64_of(bytes(32))}]]
        event |= {"prev_events": references, "auth_events": references}
        return 200, {"event": event} if room_version is None else {"event": event, "room_version": room_version}

    resident.answer_make_leave = make_leave
    alice.leave(copy.room_id)
    alice.sync_until(lambda answer: left(answer, copy.room_id))
    assert resident.versions_asked("make_leave") == ["v1"] and not resident.versions_asked("send_leave")


def test_an_old_invite_is_declined_though_its_server_tells_a_newer_version(server, alice, resident):
    room_id = f"!{unique('room')}:{resident.name}"
    old = resident.old_invite(room_id, alice.user_id)
    resident.ask(server, "PUT", path("v1/invite/{}/{}", room_id, old["event_id"]), old)
    alice.sync_until(lambda answer: invited(answer, room_id))
    resident.copies[room_id] = Copy(room_id, {}, ["$" + base64_of(bytes(32))], 5)
    alice.leave(room_id)
    alice.sync_until(lambda answer: left(answer, room_id))
    assert resident.versions_asked("make_leave") == ["v1"] and not resident.versions_asked("send_leave")


def test_our_user_is_told_that_theirs_wants_no_invites(alice, resident):
    room = alice.create_room(preset="private_chat", room_version="11")
    blocked = {"errcode": "M_INVITE_BLOCKED", "error": "No invites, please"}
    resident.answer_invite = lambda *_: (403, blocked)
    user = resident.user()
    answer = alice.post("rooms/{roomId}/invite", room, json={"user_id": user}, status=403)
    assert answer == blocked
    alice.state(room, "m.room.member", user, status=404)
    content = {"membership": "invite"}
    assert alice.set_state(room, "m.room.member", content, user, status=403) == blocked
    alice.state(room, "m.room.member", user, status=404)


def invites_of(resident):
    """The invites that it was asked to sign, in order."""
    return [json.loads(request.body)["event"] for request in resident.requests if "/v2/invite/" in request.target]


def test_our_user_invites_theirs_by_the_rooms_state(alice, resident):
    """As by `/invite`; whatever else the event says goes with it, but for what only a join can say."""
    room, user = alice.create_room(preset="private_chat", room_version="11"), resident.user()
    content = {"membership": "invite", "reason": "it rains", "is_direct": True, "org.example.more": [1]}
    body = {**content, "join_authorised_via_users_server": f"@nobody:{alice.server_name}"}
    event_id = alice.set_state(room, "m.room.member", body, user)
    (event,) = invites_of(resident)
    assert (id_of(event), event["state_key"], event["content"]) == (event_id, user, content)
    assert alice.state(room, "m.room.member", user) == content


def test_nobody_is_asked_to_sign_an_invite_that_the_room_refuses(alice, bob, resident):
    room, user, content = alice.create_room(preset="private_chat"), resident.user(), {"membership": "invite"}
    bob.set_state(room, "m.room.member", content, user, status=403, errcode="M_FORBIDDEN")
    bob.set_state(f"!nowhere:{bob.server_name}", "m.room.member", content, user, status=403, errcode="M_FORBIDDEN")
    alice.set_state(room, "m.room.member", content, "nobody", status=400, errcode="M_INVALID_PARAM")
    alice.set_state(room, "m.room.member", {**content, "number": 1.5}, user, status=400, errcode="M_BAD_JSON")
    assert invites_of(resident) == []


def test_guests_invite_nobody_of_other_servers(alice, nobody, resident):
    open_to_guests = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    room = alice.create_room(preset="public_chat", initial_state=[open_to_guests])
    guest = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    guest.join(room)
    content = {"membership": "invite"}
    guest.set_state(room, "m.room.member", content, resident.user(), status=403, errcode="M_GUEST_ACCESS_FORBIDDEN")
    assert invites_of(resident) == []


def test_an_invite_of_another_server_keeps_no_guest_out_of_a_room_that_is_here(server, alice, nobody, resident):
    open_to_guests = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    room = alice.create_room(preset="public_chat", room_version="11", initial_state=[open_to_guests])
    copy = resident.join(server, room)
    guest = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    status, answer = invite(server, resident, copy, guest, [], version="11")
    assert status == 200, answer
    guest.join(room)
    assert guest.user_id in members(alice, room, "join")


@pytest.mark.parametrize("stays", [False, True], ids=["of nobody else there", "of others there"])
@pytest.mark.parametrize("how", ["kick", "ban"])
def test_an_invite_does_not_overtake_what_turned_its_user_out(server, alice, resident, how, stays):
    """Their server would take it for an invite of a user who is in the room, or who has been turned out since; whether another of
    its users stays there or not."""
    room, user = room_with(alice, server, resident)
    if stays:
        resident.join(server, room, resident.user("staying"))
    order, was_invited = [], threading.Event()

    def answer_send(*request):
        told = [event["content"].get("membership") for event in request[-1]["pdus"]]
        if {"leave", "ban"} & set(told):
            # As long as an invite takes that waits for nothing.
            was_invited.wait(1)
            order.append("turned out")
        return Participant.answer_send(resident, *request)

    def answer_invite(*request):
        order.append("invited")
        was_invited.set()
        return Participant.answer_invite(resident, *request)

    resident.answer_send, resident.answer_invite = answer_send, answer_invite
    alice.post(f"rooms/{{roomId}}/{how}", room, json={"user_id": user})
    if how == "ban":
        alice.post("rooms/{roomId}/unban", room, json={"user_id": user})
    alice.post("rooms/{roomId}/invite", room, json={"user_id": user})
    # Who stays is told apart that a ban is over.
    assert set(order[:-1]) == {"turned out"} and order[-1] == "invited", order


def test_who_may_not_invite_is_told_so_before_anything_is_waited_for(server, alice, resident):
    room, user = room_with(alice, server, resident)
    bob = Client(server.base_url).register(unique("bob"))
    alice.post("rooms/{roomId}/invite", room, json={"user_id": bob.user_id})
    bob.join(room)
    levels = alice.state(room, "m.room.power_levels")
    alice.set_state(room, "m.room.power_levels", {**levels, "invite": 50})
    was_told, may_take = threading.Event(), threading.Event()

    def answer_send(*request):
        if "leave" in [event["content"].get("membership") for event in request[-1]["pdus"]]:
            was_told.set()
            may_take.wait(SECONDS_MAX)
        return Participant.answer_send(resident, *request)

    resident.answer_send = answer_send
    alice.post("rooms/{roomId}/kick", room, json={"user_id": user})
    assert was_told.wait(SECONDS_MAX)
    begun = time.monotonic()
    bob.post("rooms/{roomId}/invite", room, json={"user_id": user}, status=403, errcode="M_FORBIDDEN")
    # An invite would wait so long for the other server to take that its user was turned out.
    assert time.monotonic() - begun < 5
    may_take.set()


REFUSALS = {
    "blocked": (403, "M_INVITE_BLOCKED", 403, "M_INVITE_BLOCKED"),
    "a version that they do not speak": (400, "M_INCOMPATIBLE_ROOM_VERSION", 400, "M_UNSUPPORTED_ROOM_VERSION"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_who_creates_a_room_is_told_whom_it_is_not_for(alice, resident, reason):
    """The room is there all the same, with whoever is invited; the error names it."""
    unwilling, willing = resident.user("unwilling"), resident.user("willing")
    told_status, told_code, status, errcode = REFUSALS[reason]
    refusal = {"errcode": told_code, "error": "No, thank you", "room_version": "11"}

    def answer_invite(values, query, body):
        if body["event"]["state_key"] == unwilling:
            return told_status, refusal
        return Participant.answer_invite(resident, values, query, body)

    resident.answer_invite = answer_invite
    body = {"room_version": "11", "invite": [unwilling, willing]}
    answer = alice.post("createRoom", json=body, status=status, errcode=errcode)
    assert answer["error"] == "No, thank you"
    assert members(alice, answer["room_id"], "invite") == {willing}


def test_a_room_is_created_though_an_invite_does_not_arrive(alice, resident):
    """Who is told of an error might create another."""
    resident.answer_invite = lambda *_: (502, {"errcode": "M_UNKNOWN", "error": "Not now"})
    room = alice.create_room(room_version="11", invite=[resident.user()])
    assert members(alice, room, "invite") == set()


def test_invites_to_a_new_room_go_out_side_by_side(alice, network):
    peers = [network.peer(kind=Participant) for _ in range(3)]
    all_are_asked = threading.Barrier(len(peers), timeout=20)

    def answering(peer):
        def answer_invite(*request):
            all_are_asked.wait()
            return Participant.answer_invite(peer, *request)

        return answer_invite

    for peer in peers:
        peer.answer_invite = answering(peer)
    users = {peer.user() for peer in peers}
    room = alice.create_room(room_version="11", invite=sorted(users), is_direct=True)
    assert members(alice, room, "invite") == users
    assert all(alice.state(room, "m.room.member", user)["is_direct"] is True for user in users)
    alice.send(room, "what follows brings all ends together")


def test_invites_go_out_though_their_sender_goes_away(alice, resident):
    was_asked, may_answer = threading.Event(), threading.Event()

    def answer_invite(*request):
        was_asked.set()
        may_answer.wait(20)
        return Participant.answer_invite(resident, *request)

    resident.answer_invite = answer_invite
    user = resident.user()
    body = {"room_version": "11", "invite": [user]}
    with pytest.raises(requests.exceptions.ReadTimeout):
        alice.send_raw("POST", "/_matrix/client/v3/createRoom", json=body, timeout=1)
    assert was_asked.wait(20)
    may_answer.set()
    (room,) = alice.get("joined_rooms")["joined_rooms"]
    alice.sync_until(lambda _: user in members(alice, room, "invite"))


def test_an_invite_that_is_not_answered_is_not_waited_for_without_end(alice, resident, network):
    """Whoever is not told of the room makes another. The invite is under way all the same."""
    willing = network.peer(kind=Participant)
    was_asked, may_answer = threading.Event(), threading.Event()

    def answer_invite(*request):
        was_asked.set()
        may_answer.wait(SECONDS_MAX)
        return Participant.answer_invite(resident, *request)

    resident.answer_invite = answer_invite
    begun = time.monotonic()
    room = alice.create_room(room_version="11", invite=[resident.user(), willing.user()])
    # The server waits for 20 s; a loaded machine may take some more.
    assert was_asked.is_set() and time.monotonic() - begun < 32
    assert members(alice, room, "invite") == {willing.user()}
    may_answer.set()
    alice.sync_until(lambda _: members(alice, room, "invite") == {willing.user(), resident.user()})
    assert resident.versions_asked("invite") == ["v2"]
    assert alice.get("joined_rooms")["joined_rooms"] == [room]


class Held:
    """Answers of a peer that are kept back."""

    def __init__(self, resident):
        self.asked, self.may_answer = threading.Event(), threading.Event()

        def make_leave(values, *_):
            self.asked.set()
            self.may_answer.wait(SECONDS_MAX)
            return resident.template(*values, "leave")

        resident.answer_make_leave = make_leave


def close_account_of_invited(server, resident, user):
    """An invited user closes their account. Answers with what keeps the invite's server from answering meanwhile."""
    copy, held = resident.create("invite"), Held(resident)
    assert resident.invite(server, copy, user.user_id)[0] == 200
    user.sync_until(lambda answer: invited(answer, copy.room_id))
    user.with_password("POST", "account/deactivate")
    assert held.asked.wait(SECONDS_MAX) and not resident.versions_asked("send_leave")
    return held


def test_who_closes_their_account_declines_their_invites_and_waits_for_nobody(server, alice, resident):
    close_account_of_invited(server, resident, alice).may_answer.set()
    until(lambda: resident.versions_asked("send_leave"))
    assert (resident.versions_asked("make_leave"), resident.versions_asked("send_leave")) == (["v1"], ["v2"])


def test_invites_of_a_closed_account_are_declined_after_a_crash(network, resident, tmp_path):
    with sound(network.server(tmp_path)) as server:
        alice = Client(server.base_url).register("alice")
        held = close_account_of_invited(server, resident, alice)
        server.kill()
        held.may_answer.set()
        server.start()
        until(lambda: resident.versions_asked("send_leave"))
        assert resident.versions_asked("make_leave") == ["v1", "v1"]


def go_on_without(resident, copy, user, invited):
    """Turns a user of another server out, closes the room, and makes an invite of one of that server. Nobody tells them."""
    resident.next(copy, "m.room.member", {"membership": "leave"}, state_key=user.user_id)
    resident.next(copy, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
    return resident.next(copy, "m.room.member", {"membership": "invite"}, state_key=invited.user_id)


def test_who_is_invited_to_a_room_that_went_on_without_their_server_comes_in(server, alice, bob, resident):
    """The last of its users was turned out, and what told so is lost. Nobody sends it the room's events any more, so that the invite
    does not come with them."""
    copy = resident.create()
    bob.join(copy.room_id, query=via(resident))
    event = go_on_without(resident, copy, bob, alice)
    for user in (alice, bob):
        user.sync()
    assert resident.send_invite(server, copy.room_id, event)[0] == 200
    alice.sync_until(lambda answer: invited(answer, copy.room_id))
    alice.join(copy.room_id)
    assert members(alice, copy.room_id, "join") == {resident.user(), alice.user_id}
    bob.sync_until(lambda answer: left(answer, copy.room_id))
    message = resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": "hello"})
    assert resident.transact(server, [message]) == {id_of(message): {}}
    see(alice, copy.room_id, id_of(message))


def test_who_was_turned_out_and_is_invited_again_without_a_word_of_it_comes_in(server, bob, resident):
    """Their server takes them to be in the room. Where who invites them does not let them in, that may be so."""
    copy = resident.create()
    bob.join(copy.room_id, query=via(resident))
    before = copy.state["m.room.member", bob.user_id]
    assert resident.send_invite(server, copy.room_id, go_on_without(resident, copy, bob, bob))[0] == 200
    refused = []

    def refuse(*_):
        refused.append(bob.user_id)
        return 403, {"errcode": "M_FORBIDDEN", "error": "No"}

    resident.answer_make_join = refuse
    bob.join(copy.room_id)
    assert refused
    del resident.answer_make_join
    bob.join(copy.room_id)
    join = copy.state["m.room.member", bob.user_id]
    assert join != before
    assert bob.user_id in members(bob, copy.room_id, "join")
    bob.send(copy.room_id, "back")
    resident.until(lambda: "back" in resident.bodies)
    assert join in resident.pdus[-1]["auth_events"]
