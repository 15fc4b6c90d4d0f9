"""While this server does not know all members of a room that it has joined, nobody comes in, is told something or is let in
elsewhere who would not if it knew them, and nothing of what others are given has to be taken back."""

import concurrent.futures
import threading
import urllib.parse

import pytest

from harness.client import Client, address, bodies, timeline
from harness.metrics import until_at_work
from harness.omitting import PARTIAL_JOINS, Omitting, until_all_whole
from harness.participant import SECONDS_MAX, Participant, id_of, path
from harness.rooms import LAZY, invited, joined_members, members, see, via
from harness.server import free_port, sound
from harness.waiting import until


@pytest.fixture
def metrics():
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def warren(network, tmp_path, metrics):
    """A server of the test's own, with an administrator, that tells how many requests it is at."""
    server = network.server(tmp_path, "--metrics-listen", metrics)
    server.admin_password = server.make_administrator("warden")
    with sound(server):
        yield server


@pytest.fixture
def resident_kind():
    return Omitting


@pytest.fixture
def accomplice(network, resident):
    """A server that is not in the resident's rooms, and lets everybody into them."""
    peer = network.peer(kind=Participant)
    peer.share(resident)
    peer.copies = resident.copies
    yield peer
    peer.close()


def empower(resident, copy, *users):
    levels = {user: 100 for user in (resident.user(), *users)}
    resident.next(copy, "m.room.power_levels", {"users": levels}, state_key="")


def become_whole(resident, admin):
    resident.may_tell.set()
    until_all_whole(admin)


def test_a_server_whose_user_was_turned_away_is_told_nothing_once_it_has_left(warren, admin, alice, resident, neighbour):
    kept = alice.create_room(preset="public_chat")
    neighbour.join(warren, kept)
    copy = resident.create()
    room, first, second = copy.room_id, neighbour.user("first"), neighbour.user("second")
    empower(resident, copy, alice.user_id)
    neighbour.come(copy, first)
    alice.join(room, query=via(resident))
    # Of whom something is heard is known, whoever else is missing.
    heard = resident.next(copy, "m.room.member", {"membership": "leave"}, state_key=second)
    resident.transact(warren, [heard])
    see(alice, room, id_of(heard), filter=LAZY)
    for action in ("invite", "kick"):
        alice.post(f"rooms/{{roomId}}/{action}", room, json={"user_id": second})
    alice.send(room, "to all")
    neighbour.until(lambda: "to all" in neighbour.bodies)
    become_whole(resident, admin)
    alice.send(room, "to all again")
    neighbour.until(lambda: "to all again" in neighbour.bodies)
    told = [id_of(event) for event in neighbour.pdus]
    assert len(told) == len(set(told)), "each once"
    copy.user = first
    neighbour.catch_up(warren, copy)
    gone = neighbour.next(copy, "m.room.member", {"membership": "leave"}, state_key=first)
    neighbour.transact(warren, [gone])
    see(alice, room, id_of(gone))
    alice.send(room, "to those who are left")
    warren.restart()
    alice.send(room, "to those who are still left")
    alice.send(kept, "to the others")
    neighbour.until(lambda: "to the others" in neighbour.bodies)
    assert not [body for body in neighbour.bodies if "left" in body]


def test_members_are_asked_of_every_server_in_the_room(network, warren, admin, alice, resident, neighbour):
    """The one that has let this server in is at a loss, and those that it names first are gone."""
    copy = resident.create()
    room, member = copy.room_id, neighbour.user("member")
    neighbour.come(copy, member)
    gone = [network.peer() for _ in range(10)]
    for peer in gone:
        peer.close()
    resident.others = [*(peer.name for peer in gone), neighbour.name]
    resident.answer_state = lambda *_: (500, {"errcode": "M_UNKNOWN", "error": "not now"})
    alice.join(room, query=via(resident))
    # Administrators are told of all that are asked.
    assert admin.get(PARTIAL_JOINS + "/{roomId}", room)["servers"] == [resident.name, *resident.others]
    until_all_whole(admin)
    assert joined_members(alice, room) == {resident.user(), member, alice.user_id}


def test_who_is_banned_does_not_come_in(warren, admin, alice, bob, resident):
    copy = resident.create()
    room = copy.room_id
    resident.next(copy, "m.room.member", {"membership": "ban"}, state_key=bob.user_id)
    make_join = resident.answer_make_join

    def refuse_who_is_banned(values, query, body):
        if values[1] == bob.user_id:
            return 403, {"errcode": "M_FORBIDDEN", "error": "They are banned"}
        return make_join(values, query, body)

    resident.answer_make_join = resident.answer_make_knock = refuse_who_is_banned
    bob.sync(filter=LAZY)
    alice.join(room, query=via(resident))
    bob.join(room, status=403, errcode="M_FORBIDDEN")
    bob.post("knock/{roomIdOrAlias}", room, status=403, errcode="M_FORBIDDEN")
    # Nor by the way on which nobody else is asked.
    bob.set_state(room, "m.room.member", {"membership": "join"}, bob.user_id, status=503, errcode="M_UNKNOWN")
    alice.send(room, "not for bob")
    resident.until(lambda: "not for bob" in resident.bodies)
    assert bodies(timeline(bob.sync(filter=LAZY), room)) == []
    assert bob.send_raw("GET", address("rooms/{roomId}/messages", room) + "?dir=b").status_code == 403
    assert bob.user_id not in [event["sender"] for event in resident.pdus]
    become_whole(resident, admin)
    assert members(alice, room, "ban") == {bob.user_id}
    bob.join(room, status=403, errcode="M_FORBIDDEN")


def test_who_is_banned_does_not_come_in_by_an_accomplice(warren, admin, alice, bob, resident, accomplice):
    copy = resident.create()
    room = copy.room_id
    resident.next(copy, "m.room.member", {"membership": "ban"}, state_key=bob.user_id)
    refusal = {"errcode": "M_FORBIDDEN", "error": "They are banned"}
    alice.join(room, query=via(resident))
    resident.answer_make_join = resident.answer_make_knock = lambda *_: (403, refusal)
    bob.join(room, query=via(accomplice), status=403, errcode="M_FORBIDDEN")
    bob.post("knock/{roomIdOrAlias}", room, query=via(accomplice), status=403, errcode="M_FORBIDDEN")
    assert not [request for request in accomplice.requests if bob.user_id in urllib.parse.unquote(request.target)]
    become_whole(resident, admin)
    assert members(alice, room, "ban") == {bob.user_id}


def test_who_is_banned_is_told_so_though_the_first_server_does_not_know(warren, alice, bob, resident, neighbour):
    copy = resident.create()
    alice.join(copy.room_id, query=via(resident))
    unknown, banned = [{"errcode": code, "error": code} for code in ("M_NOT_FOUND", "M_FORBIDDEN")]
    resident.answer_make_join = lambda *_: (404, unknown)
    neighbour.answer_make_join = lambda *_: (403, banned)
    bob.join(copy.room_id, status=403, errcode="M_FORBIDDEN")


def test_nobody_waits_for_a_server_that_another_user_goes_by(warren, alice, bob, carol, resident):
    room = resident.create().room_id
    alice.join(room, query=via(resident))
    is_held, may_answer, make_join = threading.Event(), threading.Event(), resident.answer_make_join

    def hold_bob(values, query, body):
        if values[1] == bob.user_id:
            is_held.set()
            may_answer.wait(SECONDS_MAX)
        return make_join(values, query, body)

    resident.answer_make_join = hold_bob
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        of_bob = pool.submit(bob.join, room)
        assert is_held.wait(SECONDS_MAX)
        carol.join(room)
        assert not of_bob.done()
        may_answer.set()
        of_bob.result()


def test_who_is_let_in_before_an_entrance_that_lacks_them_may_try_again(warren, admin, alice, bob, resident):
    """The join of the one is what the other's follows with which the room is entered anew meanwhile."""
    room = resident.create().room_id
    alice.join(room, query=via(resident))
    is_in, may_answer, send_join = threading.Event(), threading.Event(), resident.answer_send_join

    def hold_bob(values, query, body):
        answer = send_join(values, query, body)
        if body["sender"] == bob.user_id:
            is_in.set()
            may_answer.wait(SECONDS_MAX)
        return answer

    resident.answer_send_join = hold_bob
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        of_bob = pool.submit(bob.join, room, status=503, errcode="M_UNKNOWN")
        assert is_in.wait(SECONDS_MAX)
        alice.leave(room)
        alice.join(room, query=via(resident))
        may_answer.set()
        of_bob.result()
    assert room not in bob.get("joined_rooms")["joined_rooms"]
    become_whole(resident, admin)
    assert bob.user_id in joined_members(alice, room)
    bob.join(room)
    assert room in bob.get("joined_rooms")["joined_rooms"]


def test_who_is_let_in_waits_for_what_is_not_here_yet(warren, admin, alice, bob, resident, neighbour):
    copy = resident.create()
    room = copy.room_id
    alice.join(room, query=via(resident))
    resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": "that nobody is told"})
    refused = [f"answer_{name}" for name in ("get_missing_events", "state_ids", "event", "event_auth")]
    for name in refused:
        setattr(resident, name, lambda *_: (404, {"errcode": "M_NOT_FOUND", "error": "Not now"}))
    bob.join(room, status=503, errcode="M_UNKNOWN")
    # Nobody is asked to let bob in once more.
    assert not neighbour.asked(path("v1/make_join/{}/{}", room, bob.user_id))
    for name in refused:
        delattr(resident, name)
    become_whole(resident, admin)
    until(lambda: bob.user_id in joined_members(alice, room))


def test_where_nobody_can_say_who_may_come_in_the_user_is_told_why(warren, admin, alice, bob, resident):
    copy = resident.create()
    alice.join(copy.room_id, query=via(resident))
    resident.answer_make_join = lambda *_: (502, {"errcode": "M_UNKNOWN", "error": "Not now"})
    refused = bob.join(copy.room_id, status=503, errcode="M_UNKNOWN")
    assert "members of this room are not known yet" in refused["error"]
    become_whole(resident, admin)
    bob.join(copy.room_id)
    assert joined_members(alice, copy.room_id) == {resident.user(), alice.user_id, bob.user_id}


def test_who_is_in_the_room_changes_their_membership_without_help(warren, admin, alice, resident):
    copy = resident.create()
    room = copy.room_id
    alice.join(room, query=via(resident))
    before = len(resident.asked(path("v1/make_join/{}/{}", room, alice.user_id)))
    alice.join(room)
    alice.set_state(room, "m.room.member", {"membership": "join", "displayname": "Alice of here"}, alice.user_id)
    assert len(resident.asked(path("v1/make_join/{}/{}", room, alice.user_id))) == before
    become_whole(resident, admin)
    assert alice.state(room, "m.room.member", alice.user_id)["displayname"] == "Alice of here"


def test_who_comes_into_a_room_that_is_known_asks_for_no_members(warren, admin, alice, bob, resident):
    """They are on their way, whatever the server that lets another user in was not told of yet."""
    room = resident.create().room_id
    alice.join(room, query=via(resident))
    was_told, may_take = threading.Event(), threading.Event()

    def answer_send(*request):
        if request[-1]["pdus"]:
            was_told.set()
            may_take.wait(SECONDS_MAX)
        return Participant.answer_send(resident, *request)

    resident.answer_send = answer_send
    alice.send(room, "not told yet")
    assert was_told.wait(SECONDS_MAX)
    bob.join(room)
    targets = [request.target for request in resident.requests if "/send_join/" in request.target]
    assert len(targets) == 2 and all("omit_members=true" in target for target in targets)
    may_take.set()
    become_whole(resident, admin)
    assert joined_members(alice, room) == {resident.user(), alice.user_id, bob.user_id}


def invite(resident, server, copy, client):
    """Invites a user of a server that is not in the room."""
    status, answer = resident.invite(server, copy, client.user_id)
    assert status == 200, answer
    resident.take(copy, answer["event"])
    client.sync_until(lambda answer: invited(answer, copy.room_id))


def test_who_was_invited_before_comes_in(warren, admin, alice, bob, resident):
    copy = resident.create(join_rule="invite")
    room = copy.room_id
    for client in (alice, bob):
        invite(resident, warren, copy, client)
    alice.join(room, query=via(resident))
    bob.join(room)
    said = alice.send(room, "for both")
    assert see(bob, room, said, filter=LAZY)["content"]["body"] == "for both"
    become_whole(resident, admin)
    assert joined_members(alice, room) == {resident.user(), alice.user_id, bob.user_id}
    # It goes on as it began.
    assert see(bob, room, alice.send(room, "still for both"))["content"]["body"] == "still for both"


def test_who_knocks_is_seen_by_who_is_in_the_room(warren, admin, alice, bob, resident):
    copy = resident.create(join_rule="knock")
    room = copy.room_id
    invite(resident, warren, copy, alice)
    alice.join(room, query=via(resident))
    bob.post("knock/{roomIdOrAlias}", room, json={"reason": "let me in"})
    knock = resident.events[copy.state["m.room.member", bob.user_id]]
    assert (knock["content"]["membership"], knock["content"]["reason"]) == ("knock", "let me in")
    assert see(alice, room, id_of(knock), filter=LAZY)["sender"] == bob.user_id
    become_whole(resident, admin)
    assert members(alice, room, "knock") == {bob.user_id}


def test_a_declined_invite_stays_declined(warren, admin, alice, carol, resident):
    copy = resident.create(join_rule="invite")
    room = copy.room_id
    for client in (alice, carol):
        invite(resident, warren, copy, client)
    alice.join(room, query=via(resident))
    carol.leave(room)
    assert resident.events[copy.state["m.room.member", carol.user_id]]["content"]["membership"] == "leave"
    carol.since = None
    assert not invited(carol.sync(), room)
    become_whole(resident, admin)
    assert members(alice, room, "leave") == {carol.user_id} and members(alice, room, "invite") == set()
    for since in (carol.since, None):
        carol.since = since
        assert not invited(carol.sync(), room)


def test_an_invite_is_declined_though_the_room_becomes_whole_meanwhile(warren, admin, alice, carol, resident):
    copy = resident.create(join_rule="invite")
    room, make_leave = copy.room_id, resident.answer_make_leave
    for client in (alice, carol):
        invite(resident, warren, copy, client)
    alice.join(room, query=via(resident))

    def answer_when_whole(*question):
        become_whole(resident, admin)
        return make_leave(*question)

    resident.answer_make_leave = answer_when_whole
    carol.leave(room)
    assert members(alice, room, "leave") == {carol.user_id} and members(alice, room, "invite") == set()
    carol.since = None
    assert not invited(carol.sync(), room)


def test_what_another_server_may_turn_out_to_have_seen_is_not_given_redacted(warren, admin, alice, resident, neighbour):
    """Whoever is given a redacted event keeps it."""
    copy = resident.create()
    room, first, second = copy.room_id, neighbour.user("first"), neighbour.user("second")
    resident.next(copy, "m.room.history_visibility", {"history_visibility": "joined"}, state_key="")
    neighbour.come(copy, first)
    alice.join(room, query=via(resident))
    said = alice.send(room, "while one of them was there")
    resident.until(lambda: said in [id_of(event) for event in resident.pdus])
    resident.take(copy, resident.events[said])
    join = neighbour.come(copy, second)
    neighbour.transact(warren, [join])
    see(alice, room, id_of(join), filter=LAZY)
    missing = {"earliest_events": [], "latest_events": [id_of(join)], "limit": 10, "min_depth": 0}

    def given():
        """The texts that the other server is given of it, by each question that it may ask."""
        status, answer = neighbour.send(warren, "GET", path("v1/event/{}", said))
        by_id = answer["pdus"] if status == 200 else []
        by_gap = neighbour.ask(warren, "POST", path("v1/get_missing_events/{}", room), missing)["events"]
        by_backfill = neighbour.ask(warren, "GET", path("v1/backfill/{}?v={}&limit=10", room, id_of(join)))["pdus"]
        return [bodies(found) for found in (by_id, by_gap, by_backfill)]

    assert given() == [[], [], []]
    become_whole(resident, admin)
    assert given() == [["while one of them was there"]] * 3


def act(client, room, action, target, by_state, status=200):
    """A user does something to another, on a connection of their own: by its endpoint, or as any state is set."""
    same = Client(client.base_url, client.user_id, client.token)
    if not by_state:
        return same.post(f"rooms/{{roomId}}/{action}", room, json={"user_id": target}, status=status)
    content = {"membership": "invite" if action == "invite" else "leave"}
    return same.set_state(room, "m.room.member", content, target, status=status)


BY_STATE = pytest.mark.parametrize("by_state", [False, True], ids=["by endpoint", "by state"])


@BY_STATE
def test_nobody_is_invited_who_is_in_the_room_or_banned(
    warren, metrics, admin, alice, bob, carol, resident, neighbour, by_state
):
    copy = resident.create()
    room, member = copy.room_id, neighbour.user("member")
    neighbour.come(copy, member)
    resident.next(copy, "m.room.member", {"membership": "ban"}, state_key=bob.user_id)
    alice.join(room, query=via(resident))
    asks = ((member, 403), (bob.user_id, 403), (carol.user_id, 200))
    with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
        answers = [pool.submit(act, alice, room, "invite", target, by_state, status) for target, status in asks]
        until_at_work(metrics, len(asks))
        become_whole(resident, admin)
        for answer in answers:
            answer.result()
    assert members(alice, room, "invite") == {carol.user_id}
    assert joined_members(alice, room) == {resident.user(), alice.user_id, member}


@BY_STATE
def test_who_is_not_known_yet_is_kicked_and_let_in_again(
    warren, metrics, admin, alice, bob, resident, neighbour, by_state
):
    copy = resident.create()
    room, member = copy.room_id, neighbour.user("member")
    empower(resident, copy, alice.user_id)
    neighbour.come(copy, member)
    resident.next(copy, "m.room.member", {"membership": "ban"}, state_key=bob.user_id)
    alice.join(room, query=via(resident))
    asks = (("kick", member), ("unban", bob.user_id))
    with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
        answers = [pool.submit(act, alice, room, action, target, by_state) for action, target in asks]
        until_at_work(metrics, len(asks))
        become_whole(resident, admin)
        for answer in answers:
            answer.result()
    assert members(alice, room, "leave") == {member, bob.user_id}


def test_an_upgrade_takes_the_bans_along(warren, admin, alice, bob, resident):
    copy = resident.create()
    room, spammer = copy.room_id, resident.user("spammer")
    empower(resident, copy, alice.user_id)
    resident.next(copy, "m.room.member", {"membership": "ban"}, state_key=spammer)
    alice.join(room, query=via(resident))
    upgrade = {"new_version": "11"}
    # Who may not is told so, and does not wait for members first.
    bob.join(room)
    bob.post("rooms/{roomId}/upgrade", room, json=upgrade, status=403, errcode="M_FORBIDDEN")
    alice.post("rooms/{roomId}/upgrade", room, json=upgrade, status=503, errcode="M_UNKNOWN")
    alice.state(room, "m.room.tombstone", status=404)
    resident.may_tell.set()
    replacement = alice.post("rooms/{roomId}/upgrade", room, json=upgrade)["replacement_room"]
    assert members(alice, replacement, "ban") == {spammer}


def test_who_may_be_a_member_of_the_space_is_told_to_ask_another_server(warren, admin, alice, resident, neighbour):
    space, member = resident.create(), neighbour.user("member")
    neighbour.come(space, member)
    alice.join(space.room_id, query=via(resident))
    allow = [{"type": "m.room_membership", "room_id": space.room_id}]
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}
    room = alice.create_room(preset="private_chat", room_version="11", initial_state=[rules])

    def ask(user):
        status, answer = neighbour.send(warren, "GET", path("v1/make_join/{}/{}?ver=11", room, user))
        return status, answer.get("errcode")

    for user in (member, neighbour.user("stranger")):
        assert ask(user) == (400, "M_UNABLE_TO_AUTHORISE_JOIN")
    shown = neighbour.ask(warren, "GET", path("v1/hierarchy/{}", room))
    assert shown["room"]["room_id"] == room
    become_whole(resident, admin)
    assert ask(member) == (200, None)
    assert ask(neighbour.user("stranger")) == (403, "M_FORBIDDEN")
