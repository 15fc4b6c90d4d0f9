"""A room is entered before its members are told: its user talks there at once, and the members come, also after the server
was killed meanwhile. Who asks for them waits."""

import concurrent.futures
import http.client
import json
import threading
import time
import urllib.parse

import pytest

from harness.client import Client, address, bodies, joined, timeline
from harness.metrics import figure, until_at_work
from harness.omitting import PARTIAL_JOINS, Omitting, until_all_whole
from harness.participant import Participant, id_of, path
from harness.peer import now_ms
from harness.rooms import LAZY, joined_members, left, read_by, see, state, state_ids, via
from harness.server import free_port
from harness.waiting import until

MEMBERS = 30
SECONDS_MAX = 60


class Resident(Omitting):
    """Refuses to tell members where a test wants it."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.refuses_state = False

    def answer_send_join(self, values, query, body):
        assert query == {"omit_members": "true"}
        return super().answer_send_join(values, query, body)

    def answer_state(self, values, query, body):
        if self.refuses_state:
            self.was_asked.set()
            return 500, {"errcode": "M_UNKNOWN", "error": "not now"}
        return super().answer_state(values, query, body)


@pytest.fixture
def resident_kind():
    return Resident


def test_members_come_after_a_kill_in_the_middle(network, resident, tmp_path):
    copy = resident.create()
    users = [resident.user(f"member{number}") for number in range(MEMBERS)]
    for user in users:
        resident.come(copy, user)
    server = network.server(tmp_path)
    with server:
        alice = Client(server.base_url).register("alice")
        alice.join(copy.room_id, query=via(resident))
        assert resident.was_asked.wait(SECONDS_MAX)
        # The members are not here yet; that keeps nobody from talking.
        said = alice.send(copy.room_id, "is anybody here?")
        resident.until(lambda: said in [id_of(event) for event in resident.pdus])
        told = resident.place(copy, resident.message(copy, "all of us", sender=users[3], prev_events=[said]))
        alice.sync()
        # Who is not known to be in the room yet has read what is not here yet.
        read = {"event_ids": [id_of(told)], "data": {"ts": 1}}
        receipt = {"edu_type": "m.receipt", "content": {copy.room_id: {"m.read": {users[5]: read}}}}
        resident.transact(server, edus=[receipt])
        resident.transact(server, [told])
        see(alice, copy.room_id, id_of(told), filter=LAZY)
        resident.was_asked.clear()
        server.kill()
    resident.may_tell.set()
    with server:
        alice.sync_until(lambda _: joined_members(alice, copy.room_id) == {resident.user(), alice.user_id, *users})
        assert resident.was_asked.is_set()
        alice.since = None
        alice.sync_until(lambda answer: read_by(answer, copy.room_id, id_of(told)) == {users[5]})
        assert state_ids(alice, copy.room_id) == set(copy.state.values())
        assert server.stop() == 0, server.log_tail()
        server.check()


def enter(resident, server, alice):
    """A room that Alice has joined without its members."""
    copy = resident.create()
    for number in range(MEMBERS):
        user = resident.user(f"member{number}")
        resident.come(copy, user)
    alice.join(copy.room_id, query=via(resident))
    return copy


def same(client):
    """The same device on connections of its own, for another thread."""
    return Client(client.base_url, client.user_id, client.token)


def say(resident, server, copy, body, sender):
    """Lets a user of the resident speak."""
    event = resident.place(copy, resident.message(copy, body, sender=sender))
    resident.transact(server, [event])
    return id_of(event)


def users_of(events):
    """The users whose membership is among events."""
    return {event["state_key"] for event in events if event["type"] == "m.room.member"}


def partial_joins(admin):
    """What administrators are told of rooms without members."""
    found = admin.get(PARTIAL_JOINS)
    assert found["total"] == len(found["rooms"])
    for room in found["rooms"]:
        assert admin.get(PARTIAL_JOINS + "/{roomId}", room["room_id"])["room_id"] == room["room_id"]
    return found["rooms"]


def test_administrators_are_told_how_far_it_is(network, resident, tmp_path):
    metrics = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", metrics)
    password = server.make_administrator("warden")

    def lacking():
        return figure(metrics, "warren_engine_rooms_with_partial_state")

    with server:
        admin = Client(server.base_url, f"@warden:{server.name}").login(password)
        alice = Client(server.base_url).register("alice")
        assert partial_joins(admin) == [] and lacking() == 0
        begun = now_ms()
        copy = enter(resident, server, alice)
        assert resident.was_asked.wait(SECONDS_MAX)
        (room,) = partial_joins(admin)
        assert begun <= room.pop("joined_ts") <= now_ms()
        assert alice.get("rooms/{roomId}/event/{eventId}", copy.room_id, room.pop("join_event_id"))["sender"] == alice.user_id
        assert room == {
            "room_id": copy.room_id,
            "servers": [resident.name],
            "stage": "fetching",
            "server": resident.name,
            "bytes_received": 0,
            "state_events_expected": None,
            "state_events_stored": 0,
            "rounds_failed": 0,
            "last_error": None,
            "next_try_ts": None,
        }
        assert lacking() == 1
        for path in (PARTIAL_JOINS, f"{PARTIAL_JOINS}/{copy.room_id}"):
            alice.get(path, status=403, errcode="M_FORBIDDEN")
        resident.was_asked.clear()
        server.kill()
    # The same after a restart, also when nobody helps.
    resident.refuses_state = True
    with server:
        (room,) = until(lambda: [room for room in partial_joins(admin) if room["rounds_failed"] > 0])
        assert (room["stage"], room["server"], room["last_error"]["server"]) == ("waiting", resident.name, resident.name)
        assert "not now" in room["last_error"]["error"] and room["last_error"]["ts"] < room["next_try_ts"]
        resident.refuses_state = False
        resident.may_tell.set()
        until_all_whole(admin)
        assert len(joined_members(alice, copy.room_id)) == MEMBERS + 2
        assert lacking() == 0
        admin.get(PARTIAL_JOINS + "/{roomId}", copy.room_id, status=404, errcode="M_NOT_FOUND")
        assert server.stop() == 0, server.log_tail()


class Halting(Omitting):
    """Sends half of what it has to tell, and the rest when a test lets it."""

    def answer_state(self, values, query, body):
        _, content = Participant.answer_state(self, values, query, body)
        text = json.dumps(content).encode()
        self.halves = [text[: len(text) // 2], text[len(text) // 2 :]]
        self.count = len(content["pdus"]) + len(content["auth_chain"])
        self.was_asked.set()
        return 200, self.pieces()

    def pieces(self):
        yield self.halves[0]
        self.may_tell.wait(SECONDS_MAX)
        yield self.halves[1]


@pytest.mark.parametrize("resident_kind", [Halting])
def test_administrators_see_what_has_come_and_what_is_checked(warren, admin, resident, away):
    """Each stage lasts as long as the test wants: half of the answer is held back, and then a key of somebody whom it tells of."""
    alice, copy = Client(warren.base_url).register("alice"), resident.create()
    for number in range(MEMBERS):
        resident.come(copy, resident.user(f"member{number}"))
    away.come(copy, away.user("member"))
    tells_keys, asked_for_keys = threading.Event(), threading.Event()

    def keys(request):
        asked_for_keys.set()
        tells_keys.wait(SECONDS_MAX)
        return away.told_keys(request)

    away.answers["/_matrix/key/v2/server"] = keys
    alice.join(copy.room_id, query=via(resident))
    assert resident.was_asked.wait(SECONDS_MAX)
    half, all_of_it = len(resident.halves[0]), sum(map(len, resident.halves))

    def progress():
        (room,) = partial_joins(admin)
        return [room[name] for name in ("stage", "bytes_received", "state_events_expected", "state_events_stored")]

    # Bytes may come in pieces; more than are sent never do.
    until(lambda: progress()[1] == half)
    assert progress() == ["fetching", half, None, 0]
    resident.may_tell.set()
    assert asked_for_keys.wait(SECONDS_MAX)
    assert progress() == ["checking", all_of_it, resident.count, 0]
    tells_keys.set()
    until_all_whole(admin)
    assert len(joined_members(alice, copy.room_id)) == MEMBERS + 3
    assert warren.stop() == 0, warren.log_tail()


class Mistaken(Omitting):
    """Tells, in the state of one room, of somebody's place in another."""

    def answer_state(self, values, query, body):
        status, content = super().answer_state(values, query, body)
        self.right = {id_of(event) for events in content.values() for event in events}
        return status, {**content, "pdus": [*content["pdus"], self.foreign]}


@pytest.mark.parametrize("resident_kind", [Mistaken])
def test_administrators_see_how_much_is_stored(warren, admin, resident):
    """A state with what cannot be stored makes no room whole, so that it can be seen for as long as one likes what was."""
    alice, elsewhere = Client(warren.base_url).register("alice"), resident.create()
    resident.foreign = resident.come(elsewhere, resident.user("stranger"))
    enter(resident, warren, alice)
    resident.may_tell.set()
    (room,) = until(lambda: [room for room in partial_joins(admin) if room["rounds_failed"] > 0])
    assert (room["stage"], room["last_error"]["server"]) == ("waiting", resident.name)
    assert id_of(resident.foreign) in room["last_error"]["error"]
    assert (room["state_events_stored"], room["state_events_expected"]) == (len(resident.right), len(resident.right) + 1)


def log_of(server, room):
    """The lines of the log that are about a room's way, each with its message first."""
    lines = [json.loads(line) for line in server.log_path.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("room_id") == room]


def test_the_log_tells_how_far_it_is(network, resident, tmp_path):
    """When the room is entered, when its members have come and when it is whole, with how much that is."""
    server = network.server(tmp_path, "--log-format", "json")
    with server:
        alice = Client(server.base_url).register("alice")
        copy = enter(resident, server, alice)
        assert resident.was_asked.wait(SECONDS_MAX)
        (entered,) = until(lambda: log_of(server, copy.room_id))
        assert entered["message"] == "a room is entered" and entered["server"] == resident.name
        others = [key for key in copy.state if key[0] != "m.room.member"]
        assert entered["state"] == len(others) and entered["members_omitted"] is True
        resident.may_tell.set()
        _, come, whole = until(lambda: len(lines := log_of(server, copy.room_id)) >= 3 and lines)
        assert come["message"] == "a room's members have come" and come["server"] == resident.name
        told = resident.told(resident.before[copy.state["m.room.member", alice.user_id]])
        assert come["events"] == len(told["state"]) + len(told["auth_chain"])
        assert whole["message"] == "a room is whole" and whole["server"] == resident.name
        assert whole["members"] > MEMBERS and 0 < whole["seconds"] < SECONDS_MAX
        assert server.stop() == 0, server.log_tail()


def test_nobody_asks_for_the_members_of_a_room_that_was_left(network, resident, tmp_path):
    server = network.server(tmp_path)
    password = server.make_administrator("warden")

    def asked(copy):
        return resident.asked(path("v1/state/{}", copy.room_id))

    with server:
        admin = Client(server.base_url, f"@warden:{server.name}").login(password)
        alice = Client(server.base_url).register("alice")
        left, kept = [enter(resident, server, alice) for _ in range(2)]
        until(lambda: asked(left) and asked(kept))
        assert {room["room_id"] for room in partial_joins(admin)} == {left.room_id, kept.room_id}
        alice.leave(left.room_id)
        assert [room["room_id"] for room in partial_joins(admin)] == [kept.room_id]
        assert server.stop() == 0, server.log_tail()
    resident.requests.clear()
    resident.may_tell.set()
    with server:
        # All rooms that lack members are taken up together. When one is whole, the others were long asked for.
        until_all_whole(admin)
        assert len(joined_members(alice, kept.room_id)) == MEMBERS + 2
        assert server.stop() == 0, server.log_tail()
    assert asked(kept) and not asked(left)


def test_a_room_is_joined_anew_while_its_members_are_waited_for(network, resident, tmp_path):
    server = network.server(tmp_path)
    password = server.make_administrator("warden")
    resident.refuses_state = True
    with server:
        admin = Client(server.base_url, f"@warden:{server.name}").login(password)
        alice = Client(server.base_url).register("alice")
        copy = enter(resident, server, alice)
        # The pauses are longer than all that follows by now.
        (first,) = until(lambda: [room for room in partial_joins(admin) if room["rounds_failed"] > 3])
        alice.leave(copy.room_id)
        resident.until(lambda: resident.pdus and resident.pdus[-1]["content"] == {"membership": "leave"})
        resident.take(copy, resident.pdus[-1])
        # What this server is not told of, for it is not in the room.
        resident.next(copy, "m.room.topic", {"topic": "nobody knows"}, state_key="")
        resident.refuses_state = False
        resident.may_tell.set()
        resident.requests.clear()
        alice.join(copy.room_id, query=via(resident))
        until_all_whole(admin)
        assert len(joined_members(alice, copy.room_id)) == MEMBERS + 2
        # The last join first, and at once; of the earlier stay it is asked thereafter.
        last, earlier = [urllib.parse.unquote(request.target) for request in resident.asked(path("v1/state/{}", copy.room_id))]
        assert first["join_event_id"] in earlier and first["join_event_id"] not in last
        assert now_ms() < first["next_try_ts"]
        assert server.stop() == 0, server.log_tail()
        server.check()


def test_who_asks_for_members_waits_for_them(network, resident, tmp_path):
    metrics = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", metrics)
    with server:
        alice = Client(server.base_url).register("alice")
        copy = enter(resident, server, alice)
        room, other = copy.room_id, resident.user("member3")
        everybody = {alice.user_id, resident.user(), *(resident.user(f"member{number}") for number in range(MEMBERS))}
        early = alice.sync()["next_batch"]
        # What is known is told at once; and of all but members it is known that there is no more.
        assert alice.state(room, "m.room.member", alice.user_id)["membership"] == "join"
        assert alice.state(room, "m.room.join_rules") == {"join_rule": "public"}
        alice.state(room, "m.room.topic", status=404, errcode="M_NOT_FOUND")

        def members(client, **query):
            return users_of(client.get("rooms/{roomId}/members", room, query=query)["chunk"])

        def members_then(client):
            return members(client, at=early)

        def all_joined(client):
            return set(client.get("rooms/{roomId}/joined_members", room)["joined"])

        def members_in_state(client):
            return users_of(state(client, room))

        questions = [members, members_then, all_joined, members_in_state]
        with concurrent.futures.ThreadPoolExecutor(len(questions) + 1) as pool:
            answers = [pool.submit(question, same(alice)) for question in questions]
            of_one = pool.submit(same(alice).state, room, "m.room.member", other)
            until_at_work(metrics, len(questions) + 1)
            # Whoever syncs does not wait.
            see(alice, room, say(resident, server, copy, "hello", other), filter=LAZY)
            assert not any(answer.done() for answer in [*answers, of_one])
            resident.may_tell.set()
            assert [answer.result() for answer in answers] == [everybody] * len(questions)
            assert of_one.result()["membership"] == "join"
        assert members(alice, at=early) == everybody
        assert server.stop() == 0, server.log_tail()
        server.check()


def test_history_goes_on_behind_what_is_still_to_come(server, resident, alice):
    """Who reads it while members are on their way is not told that it ends there."""
    copy = resident.create()
    resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": "before"})
    room = copy.room_id
    alice.join(room, query=via(resident))
    first = alice.messages(room)
    # More often than once, for each page waits only so long.
    second = alice.messages(room, **{"from": first["end"]})
    assert "before" not in bodies([*first["chunk"], *second["chunk"]])
    resident.may_tell.set()
    page, read = second, []
    while "end" in page and "before" not in read:
        page = alice.messages(room, **{"from": page["end"]})
        read += bodies(page["chunk"])
    assert "before" in read


def test_nobody_waits_for_members_in_vain(network, resident, tmp_path):
    metrics = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", metrics)
    with server, concurrent.futures.ThreadPoolExecutor(2) as pool:
        alice, bob = [Client(server.base_url).register(name) for name in ("alice", "bob")]
        room = enter(resident, server, alice).room_id
        bob.join(room)
        # A client goes away.
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        headers = {"Authorization": f"Bearer {alice.token}"}
        connection.request("GET", address("rooms/{roomId}/members", room), headers=headers)
        until_at_work(metrics, 1)
        connection.close()
        until_at_work(metrics, 0)
        # A user leaves, and sees the room as it was known then.
        of_alice = pool.submit(same(alice).get, "rooms/{roomId}/members", room)
        of_bob = pool.submit(same(bob).get, "rooms/{roomId}/members", room, status=503, errcode="M_UNKNOWN")
        until_at_work(metrics, 2)
        alice.leave(room)
        assert users_of(of_alice.result()["chunk"]) == {alice.user_id, bob.user_id}
        assert not of_bob.done()
        # The server stops.
        assert server.stop() == 0, server.log_tail()
        assert "try again" in of_bob.result()["error"]


def test_members_that_nobody_tells_are_not_waited_for_without_end(server, resident, alice):
    room = enter(resident, server, alice).room_id
    begun = time.monotonic()
    alice.get("rooms/{roomId}/members", room, status=503, errcode="M_UNKNOWN")
    # The server waits for 25 s; a loaded machine may take some more.
    assert 20 < time.monotonic() - begun < 38
    resident.may_tell.set()
    assert len(joined_members(alice, room)) == MEMBERS + 2


def lazily(client, since=None, limit=10):
    """What a client is told that loads members lazily."""
    rules = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": limit}}}
    query = {"filter": json.dumps(rules), **({"since": since} if since else {})}
    return client.get("sync", query=query)


def test_who_speaks_comes_with_their_membership(server, resident, alice):
    copy = enter(resident, server, alice)
    room, other = copy.room_id, resident.user("member3")
    # What one device is told is not known to another.
    watcher = alice.login()

    def told(answer):
        return users_of(joined(answer, room).get("state", {}).get("events", []))

    answer = lazily(alice)
    since = answer["next_batch"]
    assert other not in told(answer)
    first, last = [say(resident, server, copy, body, other) for body in ("first", "last")]
    see(watcher, room, last, filter=LAZY)
    assert other in told(lazily(alice)) and other in told(lazily(alice, since))
    answer = lazily(alice, since, limit=1)
    assert other in told(answer) and joined(answer, room)["timeline"]["limited"]
    since = answer["next_batch"]
    see(watcher, room, say(resident, server, copy, "once more", other), filter=LAZY)
    assert other not in told(lazily(alice, since)), "they are known"
    lazy = json.dumps({"lazy_load_members": True})
    assert users_of(alice.messages(room, limit=2, filter=lazy)["state"]) == {other}
    context = alice.get("rooms/{roomId}/context/{eventId}", room, first, query={"limit": 1, "filter": lazy})
    assert users_of(context["state"]) == {other}
    resident.may_tell.set()
    assert len(joined_members(alice, room)) == MEMBERS + 2


def test_typing_is_shown_of_who_may_be_a_member(server, resident, alice):
    copy = enter(resident, server, alice)
    room, other = copy.room_id, resident.user("member3")

    def typists(answer):
        events = joined(answer, room).get("ephemeral", {}).get("events", [])
        return [event["content"]["user_ids"] for event in events if event["type"] == "m.typing"]

    def tell(typing):
        content = {"room_id": room, "user_id": other, "typing": typing}
        resident.transact(server, edus=[{"edu_type": "m.typing", "content": content}])

    alice.sync(filter=LAZY)
    tell(True)
    alice.sync_until(lambda answer: typists(answer) == [[other]], filter=LAZY)
    tell(False)
    alice.sync_until(lambda answer: typists(answer) == [[]], filter=LAZY)
    resident.may_tell.set()
    assert len(joined_members(alice, room)) == MEMBERS + 2


def everybody(resident, *others):
    members = {resident.user(f"member{number}") for number in range(MEMBERS)}
    return members | {resident.user()} | {other.user_id for other in others}


def is_told_whole(answer, copy, members):
    """Whether a room is told with all that a client that does not know it has to know."""
    room = joined(answer, copy.room_id)
    events = [*room["state"]["events"], *room["timeline"]["events"]]
    told = {event["event_id"] for event in events}
    assert users_of(events) == members and told >= set(copy.state.values())
    return room["summary"]["m.joined_member_count"] == len(members)


def test_who_loads_no_members_lazily_is_shown_the_room_once_it_is_whole(network, resident, tmp_path):
    metrics = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", metrics)
    with server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        alice = Client(server.base_url).register("alice")
        before = alice.sync()["next_batch"]
        copy = enter(resident, server, alice)
        room, members = copy.room_id, everybody(resident, alice)
        lazy, late = alice.login(), alice.login()
        told = say(resident, server, copy, "hello", resident.user("member3"))
        see(lazy, room, told, filter=LAZY)
        alice.put("user/{userId}/rooms/{roomId}/tags/{tag}", alice.user_id, room, "u.den", json={"order": 0.5})
        for client in (alice, late):
            assert joined(client.sync(), room) == {}
        # Who waits goes on waiting: what is said is not for them yet.
        waiting = pool.submit(alice.sync_until, lambda answer: joined(answer, room) and answer, SECONDS_MAX)
        until_at_work(metrics, 1)
        see(lazy, room, say(resident, server, copy, "anybody?", resident.user("member3")), filter=LAZY)
        assert not waiting.done()
        resident.may_tell.set()
        answer = waiting.result()
        assert is_told_whole(answer, copy, members)
        assert told in [event["event_id"] for event in timeline(answer, room)]
        tags = [event["content"]["tags"] for event in joined(answer, room)["account_data"]["events"] if event["type"] == "m.tag"]
        assert tags == [{"u.den": {"order": 0.5}}]
        assert set(answer["device_lists"]["changed"]) >= members - {alice.user_id}
        assert joined(alice.sync(), room) == {}, "it is told once"
        # The same from every token, and from none.
        assert is_told_whole(late.sync(), copy, members)
        assert is_told_whole(alice.sync(since=before), copy, members)
        alice.since = None
        assert is_told_whole(alice.sync(), copy, members)
        # Who has the room is told of those who were missing.
        news = joined(lazy.sync(filter=LAZY), room)["state"]["events"]
        assert users_of(news) >= members - {alice.user_id, resident.user("member3")}
        assert "m.room.create" not in [event["type"] for event in news]
        assert server.stop() == 0, server.log_tail()
        server.check()


def test_a_room_that_was_not_shown_is_shown_after_a_restart(network, resident, tmp_path):
    server = network.server(tmp_path)
    with server:
        alice = Client(server.base_url).register("alice")
        copy = enter(resident, server, alice)
        members, early = everybody(resident, alice), alice.login()
        assert joined(alice.sync(), copy.room_id) == {} and joined(early.sync(), copy.room_id) == {}
        server.kill()
    with server:
        assert joined(alice.sync(), copy.room_id) == {}, "it is still not whole"
        resident.may_tell.set()
        answer = alice.sync_until(lambda answer: joined(answer, copy.room_id) and answer)
        assert is_told_whole(answer, copy, members)
        assert server.stop() == 0, server.log_tail()
    with server:
        # It became whole before the start, and nothing has happened in it since.
        assert joined(alice.sync(), copy.room_id) == {}
        assert is_told_whole(early.sync(), copy, members)
        assert server.stop() == 0, server.log_tail()


def test_who_leaves_a_room_that_was_not_shown_is_told_so(server, resident, alice):
    alice.sync()
    room = enter(resident, server, alice).room_id
    lazy = alice.login()
    assert joined(lazy.sync(filter=LAZY), room)
    assert joined(alice.sync(), room) == {}
    alice.leave(room)
    for answer in (alice.sync(), lazy.sync(filter=LAZY)):
        (last,) = left(answer, room)["timeline"]["events"][-1:]
        assert (last["state_key"], last["content"]["membership"]) == (alice.user_id, "leave")
        assert joined(answer, room) == {}
    assert left(alice.sync(), room) is None
