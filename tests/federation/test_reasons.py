"""Each reason for which something of another server is refused is counted by itself: where `test_refusals.py` leaves off."""

import concurrent.futures
import threading

import pytest

from harness.client import Client, unique
from harness.clock import HOUR, Clock
from harness.events import id_of, nested
from harness.metrics import REFUSALS, Counting, told
from harness.participant import SECONDS_MAX, UNKNOWN, Participant, path
from harness.peer import DAY_MS, Key, authorization, now_ms
from harness.policies import SIGN, enable, signs
from harness.rooms import via
from harness.server import free_port, sound
from harness.waiting import until
from harness.withholding import Withholding

EVENTS = "warren_federation_events_total"
EDUS = "warren_federation_edus_dropped_total"
SIGNATURES = "warren_policy_signatures_total"
REQUESTS = "warren_federation_requests_total"
TRANSACTIONS = "warren_federation_transactions_sent_total"
LIST, QUERY, PROFILE = path("v1/publicRooms"), path("v1/user/keys/query"), path("v1/query/profile")
# So many headers may sign a request.
AUTHORIZATIONS_MAX = 8
# So many users may be told of in one part.
ENTRIES_MAX = 1_000
# The bytes of the largest message to a device, and of all that one request may put into queues.
MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX = 65_536, 5 << 20
# What is said of the keys of one query's users may have so many bytes, and of each of them so many.
KEYS_BYTES_MAX, KEYS_OF_USER_BYTES_MAX = 32 << 20, 65_536
# What of a state nobody else waits for.
STATE_BYTES_FREE = 1 << 20
# What passes of time at each look.
STEP_SECONDS = 4


@pytest.fixture
def events(measured):
    return Counting(measured[1].address, EVENTS)


def public_room(alice):
    return alice.create_room(preset="public_chat", room_version="11")


def header(peer, server, destination=None, **parameters):
    return authorization("GET", LIST, peer.name, destination or server.name, peer.key, **parameters)


def by(peer, server, origin):
    return authorization("GET", LIST, origin, server.name, peer.key)


# Headers that a request for the list of rooms comes with, and why they are refused.
HEADERS = {
    "for another server": ("wrong_destination", lambda peer, server: [header(peer, server, destination="elsewhere.test")]),
    "no parameters": ("malformed", lambda peer, server: ["X-Matrix nonsense"]),
    "without a signature": ("malformed", lambda peer, server: [header(peer, server, sig=None)]),
    "too many": ("malformed", lambda peer, server: [header(peer, server)] * (AUTHORIZATIONS_MAX + 1)),
    "of two servers": ("malformed", lambda peer, server: [header(peer, server), by(peer, server, "elsewhere.test")]),
    "of nobody": ("malformed", lambda peer, server: [by(peer, server, "no name")]),
    "of the server itself": ("malformed", lambda peer, server: [by(peer, server, server.name)]),
}


def test_requests_are_counted_by_what_is_wrong_with_their_headers(measured, resident):
    server, refusals = measured
    for name, (reason, headers) in HEADERS.items():
        status, _ = resident.send(server, "GET", LIST, headers=headers(resident, server))
        assert (status, refusals.news()) == (401, {("publicRooms", reason): 1}), name
    assert resident.send(server, "GET", LIST, headers=[header(resident, server)] * AUTHORIZATIONS_MAX)[0] == 200
    assert refusals.news() == {}


def test_events_by_keys_that_cannot_be_had_are_counted(measured, alice, resident, events):
    server, refusals = measured
    assert resident.invite(server, resident.create("invite"), alice.user_id, key=Key("unheard"))[0] == 400
    assert events.news() == {("dropped", "key_unknown"): 1}
    assert refusals.news() == {("invite", "bad_event"): 1}


def test_leaves_that_are_not_what_the_endpoint_takes_are_counted(measured, alice, resident, events):
    server, refusals = measured
    copy = resident.join(server, public_room(alice))
    leave = resident.event(copy, "m.room.member", {"membership": "leave"}, state_key=copy.user)
    message = resident.message(copy)
    events.news()
    for event_id, event in (("$other", leave), (id_of(message), message)):
        assert resident.send(server, "PUT", path("v2/send_leave/{}/{}", copy.room_id, event_id), event)[0] == 400
        assert events.news() == {("dropped", "unfit"): 1}
        assert refusals.news() == {("send_leave", "M_INVALID_PARAM"): 1}
    assert resident.send(server, "PUT", path("v2/send_leave/{}/{}", copy.room_id, id_of(leave)), leave)[0] == 200
    assert events.news() == {("accepted", ""): 1}


def test_events_that_allow_each_other_in_a_circle_are_counted(measured, alice, resident, events):
    """In the oldest versions servers choose the ids of their events."""
    server, _ = measured
    room = alice.create_room(preset="public_chat", room_version="1")
    ids = [f"${unique('event')}:{resident.name}" for _ in range(2)]
    said = {"type": "m.room.message", "sender": resident.user(), "content": {"body": "round and round"}, "depth": 5}
    said |= {"room_id": room, "origin": resident.name, "origin_server_ts": now_ms()}

    def event(event_id, other):
        named = [[other, {"sha256": "A" * 43}]]
        return resident.sign({**said, "event_id": event_id, "prev_events": named, "auth_events": named})

    events.news()
    results = resident.transact(server, [event(*ids), event(*ids[::-1])])
    assert results.keys() == set(ids) and all("error" in result for result in results.values())
    assert events.news() == {("dropped", "circular"): 2}


def lacking(resident, copy, count):
    """Messages that wait for an event which would allow them, and that is never told."""
    untold = resident.message(copy, "untold")
    del resident.events[id_of(untold)]
    allowing = [*copy.allowing("m.room.message", copy.user), id_of(untold)]
    return [resident.message(copy, f"{number}", auth_events=allowing) for number in range(count)]


def test_events_of_a_room_that_was_left_meanwhile_are_counted(measured, alice, resident, events):
    """They wait for what allows them, and what is asked for comes when nobody is there any more."""
    server, _ = measured
    copy = resident.join(server, public_room(alice))
    was_asked, may_answer = threading.Event(), threading.Event()

    def answer_late(*_):
        was_asked.set()
        may_answer.wait(SECONDS_MAX)
        return UNKNOWN

    resident.answer_event = resident.answer_event_auth = answer_late
    waiting = lacking(resident, copy, 3)
    events.news()
    resident.transact(server, waiting[:2])
    assert was_asked.wait(SECONDS_MAX)
    # What comes meanwhile is looked after as soon as the answer is there, and the others with it.
    resident.transact(server, waiting[2:])
    alice.post("rooms/{roomId}/leave", copy.room_id)
    may_answer.set()
    until(lambda: ("dropped", "unknown_room") in told(events.address, EVENTS))
    assert events.news()["dropped", "unknown_room"] == len(waiting)


def test_events_that_have_waited_for_a_day_are_counted(network, tmp_path, resident):
    """They are given up in the next attempt, which another one that waits brings about."""
    clock, address = Clock(tmp_path), f"http://127.0.0.1:{free_port()}"
    resident.changes["valid_until_ts"] = now_ms() + 7 * DAY_MS
    server = network.server(tmp_path, "--metrics-listen", address)
    server.environment = clock.environment
    with sound(server):
        alice = Client(server.base_url).register("alice")
        *old, new = lacking(resident, resident.join(server, public_room(alice)), 3)
        resident.transact(server, old)
        clock.ahead(25 * HOUR)
        resident.transact(server, [new])
        until(lambda: told(address, EVENTS).get(("dropped", "waited_too_long")) == len(old))


# What is told beside events, by why it is passed over. `room` is shared with the teller, `elsewhere` is an event of another room.


def from_nobody_near(resident, alice, room, elsewhere):
    ghost = resident.user("ghost")
    device = {"user_id": ghost, "device_id": "A", "stream_id": 1, "prev_id": []}
    return [
        ("m.presence", {"push": [{"user_id": ghost, "presence": "offline"}]}),
        ("m.device_list_update", device),
        ("m.signing_key_update", {"user_id": ghost}),
    ]


def to_a_device_that_is_not_there(resident, alice, room, elsewhere):
    return [direct(resident, {alice.user_id: {alice.device_id: {}, "NOWHERE": {}}, f"{alice.user_id}x": {"*": {}}})]


def told_twice(resident, alice, room, elsewhere):
    return [direct(resident, {alice.user_id: {"*": {}}})] * 2


def of_an_event_of_another_room(resident, alice, room, elsewhere):
    read = {"event_ids": [elsewhere], "data": {"ts": now_ms()}}
    return [("m.receipt", {room: {"m.read": {resident.user(): read}}})]


def of_more_than_one_part_may_have(resident, alice, room, elsewhere):
    present = {"user_id": resident.user(), "presence": "online", "last_active_ago": 1}
    return [("m.presence", {"push": [present] * (ENTRIES_MAX + 2)})]


def to_more_devices_than_one_request_may_reach(resident, alice, room, elsewhere):
    for _ in range(REQUEST_BYTES_MAX // MESSAGE_BYTES_MAX):
        alice.login()
    return [direct(resident, {alice.user_id: {"*": {"text": "x" * (MESSAGE_BYTES_MAX - len('{"text":""}'))}}})]


def larger_than_a_message_may_be(resident, alice, room, elsewhere):
    return [direct(resident, {alice.user_id: {"*": {"text": "x" * MESSAGE_BYTES_MAX}}})]


def nested_without_end(resident, alice, room, elsewhere):
    return [("m.typing", {"room_id": room, "user_id": resident.user(), "typing": True, "x": nested(200)})]


def direct(resident, messages):
    content = {"sender": resident.user(), "type": "m.test", "message_id": unique("m"), "messages": messages}
    return "m.direct_to_device", content


@pytest.mark.parametrize(
    "tell, reason, count",
    [
        (from_nobody_near, "no_shared_room", 3),
        (to_a_device_that_is_not_there, "unknown_device", 2),
        (told_twice, "repeated", 1),
        (larger_than_a_message_may_be, "too_large", 1),
        (nested_without_end, "format", 1),
        (of_an_event_of_another_room, "unknown_event", 1),
        (of_more_than_one_part_may_have, "too_many_entries", 2),
        # With who sent them, so many of the largest are a little more than may be; and there is the device she began with.
        (to_more_devices_than_one_request_may_reach, "too_much", 2),
    ],
)
def test_what_is_told_beside_events_is_counted_by_why_it_is_passed_over(measured, alice, resident, tell, reason, count):
    server, refusals = measured
    room = public_room(alice)
    elsewhere = alice.send(public_room(alice), "elsewhere")
    resident.join(server, room)
    edus = [{"edu_type": kind, "content": content} for kind, content in tell(resident, alice, room, elsewhere)]
    assert resident.transact(server, edus=edus) == {}
    assert told(refusals.address, EDUS) == {(reason,): count}


AUTHORISING = "join_authorised_via_users_server"


@pytest.mark.parametrize(
    "member, lie",
    [
        ("room_id", {"room_id": "!other:elsewhere.test"}),
        ("state_key", {"state_key": "@other:elsewhere.test"}),
        ("prev_events", {"prev_events": []}),
        ("prev_events", {"prev_events": [["$pair", {}]]}),
        ("depth", {"depth": "deep"}),
        ("content.join_authorised_via_users_server", {"content": {"membership": "join", AUTHORISING: "@x:elsewhere.test"}}),
    ],
)
def test_templates_are_counted_by_what_nobody_would_sign(measured, alice, resident, member, lie):
    copy, right = resident.create(), resident.template

    def template(*values):
        status, answer = right(*values)
        return status, {**answer, "event": {**answer["event"], **lie}}

    resident.template = template
    alice.join(copy.room_id, query=via(resident), status=502)
    assert measured[1].news() == {("template", member): 1}


def knock(alice, resident, copy):
    alice.post("knock/{roomIdOrAlias}", copy.room_id, query=via(resident), status=502)


def join(alice, resident, copy):
    alice.join(copy.room_id, query=via(resident), status=502)


def leave(alice, _resident, copy):
    """Whoever declines an invite is rid of it in any case."""
    alice.leave(copy.room_id)


@pytest.mark.parametrize("change", [join, knock, leave])
@pytest.mark.parametrize("name", ["prev_events", "auth_events"])
def test_templates_are_counted_of_which_no_event_can_be_made(measured, alice, resident, change, name):
    """The ids in it are none."""
    server, refusals = measured
    copy, right = resident.create("knock"), resident.template
    if change is leave:
        assert resident.invite(server, copy, alice.user_id)[0] == 200

    def template(*values):
        status, answer = right(*values)
        return status, {**answer, "event": {**answer["event"], name: ["no id"]}}

    resident.template = template
    change(alice, resident, copy)
    until(lambda: told(refusals.address, REFUSALS))
    assert refusals.news() == {("template", "event"): 1}


class StandingStill(Withholding):
    """Begins to tell a state, with more than others may have to wait for, and stands still."""

    def answer_send_join(self, *_):
        return 200, self.begun()

    def begun(self):
        yield b'{"state":["' + b"x" * (2 * STATE_BYTES_FREE)
        self.until_it_may()


def enter(alice, peer):
    alice.join(peer.create().room_id, query=via(peer), status=502, errcode="M_UNKNOWN")


class Silent(Withholding):
    """Is asked for a profile, and says nothing."""

    def answer_query(self, *_):
        self.until_it_may()
        return UNKNOWN


def look_up(alice, peer):
    alice.get("profile/{userId}", peer.user(), status=502, errcode="M_UNKNOWN")


@pytest.mark.parametrize(
    "kind, ask, metric, counted",
    [(StandingStill, enter, REFUSALS, ("answer", "too_slow")), (Silent, look_up, REQUESTS, ("timeout",))],
)
def test_what_takes_too_long_is_counted(network, tmp_path, until_over, kind, ask, metric, counted):
    clock, address, peer = Clock(tmp_path), f"http://127.0.0.1:{free_port()}", until_over(kind)
    server = network.server(tmp_path, "--metrics-listen", address)
    server.environment = clock.environment
    with sound(server), concurrent.futures.ThreadPoolExecutor(1) as pool:
        alice, bob = (Client(server.base_url).register(name) for name in ("alice", "bob"))
        asking = pool.submit(ask, alice, peer)
        until(lambda: peer.requests)

        def is_given_up():
            clock.passes(STEP_SECONDS)
            # Whoever sleeps is woken.
            bob.get("account/whoami")
            return asking.done()

        until(is_given_up)
        asking.result()
        assert told(address, metric)[counted] == 1


def test_what_is_said_of_keys_is_counted_for_which_no_memory_is_left(measured, alice, network):
    """One server may say as much of its users, and two may not."""
    refusals, peers = measured[1], [network.peer() for _ in range(2)]
    said = b'{"device_keys":{},"x":"' + b"x" * (KEYS_BYTES_MAX * 2 // 3) + b'"}'
    users = range(len(said) // KEYS_OF_USER_BYTES_MAX)
    for peer in peers:
        peer.answers[QUERY] = lambda _: (200, said)

    def failures(*peers):
        wanted = {f"@user{number}:{peer.name}": [] for peer in peers for number in users}
        return alice.post("keys/query", json={"device_keys": wanted, "timeout": 30_000})["failures"]

    assert failures(peers[0]) == {} and refusals.news() == {}
    # Which of them, or whether both are left out, is a matter of who is when how far.
    left_out = failures(*peers)
    assert left_out and all("no memory left" in failure["message"] for failure in left_out.values())
    assert refusals.news() == {("answer", "no_memory"): len(left_out)}
    assert failures(peers[1]) == {} and refusals.news() == {}


def test_requests_to_other_servers_are_counted_by_what_became_of_them(measured, alice, network):
    requests = Counting(measured[1].address, REQUESTS)
    peer, gone, denied = network.peer(), network.peer(), network.peer("asked.denied.test")
    gone.close()
    peer.answers[PROFILE] = lambda _: (200, {"displayname": "Bob"})
    alice.get("profile/{userId}", f"@bob:{peer.name}")
    assert requests.news() == {("answered",): 1}
    peer.answers[PROFILE] = lambda _: (404, {"errcode": "M_NOT_FOUND", "error": "Nobody is called so"})
    alice.get("profile/{userId}", f"@carl:{peer.name}", status=404)
    assert requests.news() == {("refused",): 1}
    alice.get("profile/{userId}", f"@bob:{gone.name}", status=502)
    assert requests.news() == {("unreachable",): 1}
    alice.get("profile/{userId}", f"@bob:{denied.name}", status=403)
    assert requests.news() == {("not_admitted",): 1}


def test_transactions_are_counted_by_what_became_of_them(measured, alice, resident):
    server, refusals = measured
    room = public_room(alice)
    resident.join(server, room)
    outcomes = lambda: {outcome for (outcome,) in told(refusals.address, TRANSACTIONS)}
    alice.send(room, "welcome")
    until(lambda: outcomes() == {"taken"})
    for outcome, status, errcode in (("given_up", 400, "M_BAD_JSON"), ("failed", 500, "M_UNKNOWN")):
        resident.answer_send = lambda *_, answer=(status, {"errcode": errcode, "error": "I do not like this"}): answer
        before = outcomes()
        alice.send(room, "unwelcome")
        until(lambda wanted=before | {outcome}: outcomes() == wanted)


def moved(location):
    part = f'--here\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--here\r\nLocation: {location}\r\n\r\n\r\n--here--\r\n'
    return lambda _: (200, part.encode(), {"Content-Type": "multipart/mixed; boundary=here"})


@pytest.mark.parametrize(
    "location", ["http://elsewhere.test/file", "https://user:secret@elsewhere.test/file", "nowhere at all", "/file"]
)
def test_addresses_of_files_are_counted_that_are_none_of_https(measured, alice, resident, location):
    resident.answers[path("v1/media/download/{}", "moved")] = moved(location)
    answer = alice.send_raw("GET", f"/_matrix/client/v1/media/download/{resident.name}/moved")
    assert answer.status_code == 502
    assert measured[1].news() == {("answer", "unfit"): 1}


def test_aliases_are_counted_that_stand_for_no_room_id(measured, alice, resident):
    answer = {"room_id": "#burrow:elsewhere.test", "servers": [resident.name]}
    resident.answers[path("v1/query/directory")] = lambda _: (200, answer)
    alice.get("directory/room/{roomAlias}", f"#burrow:{resident.name}", status=502)
    assert measured[1].news() == {("answer", "unfit"): 1}


def test_what_comes_of_questions_to_policy_servers_is_counted(measured, alice, resident, network, events):
    server, _ = measured
    policy, other = signs(resident), network.peer(kind=Participant)
    signatures = Counting(events.address, SIGNATURES)
    room = public_room(alice)
    policy.join(server, room)
    copy = other.join(server, room)
    enable(alice, room, policy)
    other.catch_up(server, copy)
    alice.send(room, "hello")
    assert signatures.news() == {("answered",): 1}
    alice.send(room, "spam", status=400)
    assert signatures.news() == {("refused",): 1}
    # Of another server, who hands it in or sends it.
    sign, policy.answers[SIGN] = policy.answers[SIGN], lambda _: (400, {"errcode": "M_FORBIDDEN", "error": "not them"})
    events.news()
    assert policy.send_join(server, policy.make_join(server, room, policy.user("dora")))[0] == 400
    assert signatures.news() == {("refused",): 1}
    assert events.news() == {("dropped", "policy_server"): 1}
    policy.answers[SIGN] = sign
    spam = other.message(copy, "spam")
    assert other.transact(server, [spam]) == {id_of(spam): {}}
    until(lambda: ("soft_failed", "policy_server") in told(events.address, EVENTS))
    assert events.news() == {("soft_failed", "policy_server"): 1}
    assert signatures.news() == {("refused",): 1}
    # Who is silent is not asked again for a while about what others send.
    policy.close()
    policy.closes_all = True
    alice.send(room, "hello", status=502)
    assert signatures.news() == {("unreachable",): 1}
    other.transact(server, [other.message(copy, "waits")])
    until(lambda: ("left_alone",) in told(events.address, SIGNATURES))
    assert signatures.news().keys() == {("left_alone",)}
    assert events.news() == {}
