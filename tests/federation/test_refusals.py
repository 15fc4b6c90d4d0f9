"""What is refused of other servers' input is counted with its reason."""

import re
import threading

import pytest

from harness.certificates import Authority
from harness.client import Client
from harness.events import Copy, id_of
from harness.metrics import REFUSALS, Counting, told
from harness.participant import SPOKEN, UNKNOWN, path
from harness.peer import DAY_MS, Key, Peer, now_ms, signed
from harness.rooms import via
from harness.server import Server, free_port
from harness.waiting import until

EVENTS = "warren_federation_events_total"
CONNECTIONS = "warren_connections_refused_total"
FILE = "/.well-known/matrix/server"
KEYS = "/_matrix/key/v2/server"
LIST = "/_matrix/federation/v1/publicRooms"


def test_events_and_edus_are_counted_by_what_became_of_them(network, tmp_path, resident):
    address = f"http://127.0.0.1:{free_port()}"
    with network.server(tmp_path, "--metrics-listen", address) as server:
        alice = Client(server.base_url).register("alice")
        room_id = alice.create_room(preset="public_chat", room_version="11")
        copy, banned = resident.join(server, room_id), resident.user("carl")
        evading = resident.message(resident.join(server, room_id, banned), "said before the ban")
        alice.post("rooms/{roomId}/ban", room_id, json={"user_id": banned})
        join = resident.make_join(server, room_id, banned, like=copy.user)
        assert resident.send_join(server, join)[0] == 403
        resident.catch_up(server, copy)
        good = resident.message(copy)
        forged = {**resident.message(copy, "forged"), "signatures": good["signatures"]}
        unsigned = {**resident.message(copy, "unsigned"), "signatures": {}}
        # Of an event that the rules refuse it is told by which.
        state = resident.event(copy, "m.room.name", {"name": "mine"}, state_key="")
        malformed = {**good, "depth": "deep"}
        elsewhere = {**good, "room_id": "!unknown:here.test"}
        typing = {"room_id": room_id, "user_id": banned, "typing": True}
        edus = [{"edu_type": "m.typing", "content": typing}, {"edu_type": "m.unheard", "content": {}}]
        pdus = [good, evading, forged, unsigned, state, malformed, elsewhere, {"no": "room"}]
        results = resident.transact(server, pdus, edus)
        assert results[id_of(good)] == {} and results[id_of(evading)] == {}
        events = told(address, EVENTS)
        dropped = {reason: count for (outcome, reason), count in events.items() if outcome == "dropped"}
        assert dropped == {"wrong_signature": 1, "unsigned": 1, "format": 2, "unknown_room": 1}
        assert events["accepted", ""] == 3, "two joins and a message"
        outcomes = {outcome: reason for outcome, reason in events if outcome in ("soft_failed", "rejected")}
        assert set(outcomes) == {"soft_failed", "rejected"} and all(re.match(r"\d", rule) for rule in outcomes.values())
        edus = told(address, "warren_federation_edus_dropped_total")
        assert edus == {("not_in_room",): 1, ("not_understood",): 1}
        alice.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [resident.name.split(":")[0]]})
        assert "error" in resident.transact(server, [good])[id_of(good)]
        assert told(address, EVENTS)["dropped", "server_acl"] == 1
        assert resident.send(server, "GET", "/_matrix/federation/v1/publicRooms", key=Key())[0] == 401
        refused = told(address, REFUSALS)
        assert refused.pop(("publicRooms", "wrong_signature")) == 1
        # The join of who is banned, by the rule that it breaks.
        [((endpoint, rule), count)] = refused.items()
        assert (endpoint, count) == ("send_join", 1) and re.match(r"\d", rule)


def public_room(alice):
    return alice.create_room(preset="public_chat", room_version="11")


def of_key_out_of_use(server, alice, resident):
    old, resident.key = resident.key, Key("p2")
    resident.changes["old_verify_keys"] = {old.id: {"key": old.public, "expired_ts": now_ms() - 1}}
    return resident.message(resident.join(server, public_room(alice)), key=old)


def of_key_that_is_never_trusted(server, alice, resident):
    return resident.message(resident.join(server, public_room(alice)), key=Key("leaked"))


def behind_an_event_of_another_room(server, alice, resident):
    copy, other = (resident.join(server, public_room(alice)) for _ in range(2))
    return resident.message(copy, prev_events=other.ends)


def allowed_by_an_event_of_another_room(server, alice, resident):
    copy, other = (resident.join(server, public_room(alice)) for _ in range(2))
    return resident.message(copy, auth_events=list(other.state.values()))


def another_beginning(server, alice, resident):
    copy = resident.create()
    alice.join(copy.room_id, query=via(resident))
    # Its creator's server may say anything of how the room began.
    first = {"prev_events": [], "auth_events": [], "depth": 1}
    return resident.event(copy, "m.room.create", {"room_version": "11"}, state_key="", **first)


@pytest.mark.parametrize(
    "make, reason",
    [
        (of_key_out_of_use, "key_expired"),
        (of_key_that_is_never_trusted, "key_never_trusted"),
        (behind_an_event_of_another_room, "other_room"),
        (allowed_by_an_event_of_another_room, "other_room"),
        (another_beginning, "second_create"),
    ],
)
def test_events_that_are_dropped_are_counted_by_why(measured, alice, resident, make, reason):
    server, refusals = measured
    events = Counting(refusals.address, EVENTS)
    event = make(server, alice, resident)
    events.news()
    assert "error" in resident.transact(server, [event])[id_of(event)]
    assert events.news() == {("dropped", reason): 1}


def test_events_that_lead_to_nothing_in_a_room_are_counted(measured, alice, resident):
    """They come as the history before what is here."""
    events = Counting(measured[1].address, EVENTS)
    copy = resident.create()
    alice.join(copy.room_id, query=via(resident))
    stray = resident.message(copy, "stray")
    resident.answer_backfill = lambda *_: resident.enveloped([stray])
    alice.messages(copy.room_id)
    until(lambda: ("dropped", "unrelated") in told(events.address, EVENTS))
    assert "stray" not in str(alice.messages(copy.room_id))


# So many events of one server wait in a room, and so many come at once.
WAITING_MAX, AT_ONCE = 250, 50


def test_events_that_find_no_place_among_those_that_wait_are_counted(measured, alice, resident):
    server, refusals = measured
    events = Counting(refusals.address, EVENTS)
    copy = resident.join(server, public_room(alice))
    # What allows them is never told.
    untold = resident.message(copy, "untold")
    del resident.events[id_of(untold)]
    lacking = {"auth_events": [*copy.allowing("m.room.message", copy.user), id_of(untold)]}
    waiting = [resident.message(copy, f"{number}", **lacking) for number in range(WAITING_MAX + 2)]
    events.news()
    results = {}
    for start in range(0, len(waiting), AT_ONCE):
        results |= resident.transact(server, waiting[start : start + AT_ONCE])
    assert sum("error" in result for result in results.values()) == 2
    assert events.news() == {("dropped", "too_many_waiting"): 2}


def test_reads_and_handshakes_are_counted_by_why_they_are_refused(measured, alice, resident):
    server, refusals = measured
    room = alice.create_room(preset="public_chat", room_version="11")
    closed = alice.create_room(preset="private_chat", room_version="11")
    event_id, zoe = alice.send(room, "hello"), resident.user("zoe")
    reads = ["state/{}?event_id={}", "state_ids/{}?event_id={}", "backfill/{}?limit=1&v={}", "event_auth/{}/{}"]

    def ask(name, *values):
        assert resident.send(server, "GET", path(f"v1/{name}", *values))[0] in (400, 403)

    for read in reads:
        ask(read, room, event_id)
    names = [re.match(r"\w+", read)[0] for read in reads]
    assert refusals.news() == {(name, "not_in_room"): 1 for name in names}
    join = resident.make_join(server, room)
    copy = resident.join(server, room)
    ask(f"make_join/{{}}/{{}}?{SPOKEN}", closed, zoe)
    ask(f"make_knock/{{}}/{{}}?{SPOKEN}", room, zoe)
    ask("make_join/{}/{}?ver=1", room, zoe)
    news = refusals.news()
    assert news.pop(("make_join", "M_INCOMPATIBLE_ROOM_VERSION")) == 1
    assert {name for name, rule in news if re.match(r"\d", rule)} == {"make_join", "make_knock"}, news
    assert len(news) == 2
    alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": [resident.name.split(":")[0]]})
    for read in reads:
        ask(read, room, event_id)
    for action in ("join", "knock"):
        ask(f"make_{action}/{{}}/{{}}?{SPOKEN}", room, zoe)
    ask("make_leave/{}/{}", room, copy.user)
    assert resident.send_join(server, join)[0] == 403
    names += ["make_join", "make_knock", "make_leave", "send_join"]
    assert refusals.news() == {(name, "server_acl"): 1 for name in names}


def test_invites_are_counted_by_why_they_are_refused(measured, alice, resident):
    server, refusals = measured
    copy = resident.create("invite")

    def invite(event, errcode, **more):
        status, answer = resident.send_invite(server, copy.room_id, event, **more)
        assert answer["errcode"] == errcode, (status, answer)
        return refusals.news()

    good = resident.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    assert invite({**good, "signatures": {}}, "M_INVALID_PARAM") == {("invite", "bad_event"): 1}
    assert invite(good, "M_INVALID_PARAM", event_id="$other") == {("invite", "M_INVALID_PARAM"): 1}
    version = {"room_version": "unheard"}
    counted = {("invite", "M_INCOMPATIBLE_ROOM_VERSION"): 1}
    assert invite(good, "M_INCOMPATIBLE_ROOM_VERSION", **version) == counted
    for user, errcode, reason in (
        (resident.user(), "M_FORBIDDEN", "other_server"),
        (f"@nobody:{server.name}", "M_NOT_FOUND", "M_NOT_FOUND"),
    ):
        event = resident.event(copy, "m.room.member", {"membership": "invite"}, state_key=user)
        assert invite(event, errcode) == {("invite", reason): 1}
    content = {"default_action": "block"}
    alice.put("user/{userId}/account_data/{type}", alice.user_id, "m.invite_permission_config", json=content)
    assert invite(good, "M_INVITE_BLOCKED") == {("invite", "M_INVITE_BLOCKED"): 1}


def of_a_server_that_is_not_dealt_with(server, alice, resident, network):
    return network.peer("someone.denied.test").send(server, "GET", LIST)


def for_a_user_of_another_server(server, alice, resident, network):
    user = f"@someone:{network.notary.name}"
    return resident.send(server, "GET", path(f"v1/make_join/{{}}/{{}}?{SPOKEN}", public_room(alice), user))


def by_who_left_the_room_for_whose_members_it_is(server, alice, resident, network):
    hall = public_room(alice)
    content = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": hall}]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room = alice.create_room(preset="private_chat", room_version="11", initial_state=[rules])
    copy = resident.join(server, hall)
    event = resident.make_join(server, room)
    resident.leave(server, copy)
    return resident.send_join(server, event)


def one_invite_more_than_may_be_open(server, alice, resident, network):
    for _ in range(OPEN_INVITES_OF_SENDER_MAX):
        status, answer = resident.invite(server, resident.create("invite"), alice.user_id)
        assert status == 200, answer
    return resident.invite(server, resident.create("invite"), alice.user_id)


def showing_what_its_server_has_not_signed(server, alice, resident, network):
    create = resident.begin("12")
    copy = Copy("!" + id_of(create)[1:], {}, [id_of(create)], 1, resident.user())
    resident.next(copy, "m.room.member", {"membership": "join"}, state_key=copy.user)
    name = resident.event(copy, "m.room.name", {"name": "The burrow"}, state_key="")
    forged = {**name, "signatures": create["signatures"]}
    event = resident.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    shown = {"room_version": "12", "invite_room_state": [create, forged]}
    return resident.send_invite(server, copy.room_id, event, **shown)


def too_large(server, alice, resident, network):
    return resident.send(server, "POST", LIST, {}, body=b" " * 300_000)


# So many invites of one user may wait for another's answer.
OPEN_INVITES_OF_SENDER_MAX = 20


@pytest.mark.parametrize(
    "ask, status, counted",
    [
        (of_a_server_that_is_not_dealt_with, 403, ("publicRooms", "denied")),
        (for_a_user_of_another_server, 403, ("make_join", "not_yours")),
        (by_who_left_the_room_for_whose_members_it_is, 403, ("send_join", "join_conditions")),
        (one_invite_more_than_may_be_open, 403, ("invite", "too_many_invites")),
        (showing_what_its_server_has_not_signed, 400, ("invite", "bad_room_state")),
        (too_large, 413, ("publicRooms", "M_TOO_LARGE")),
    ],
)
def test_requests_are_counted_by_why_they_are_refused(measured, alice, resident, network, ask, status, counted):
    server, refusals = measured
    assert ask(server, alice, resident, network)[0] == status
    assert refusals.news() == {counted: 1}


def test_requests_that_are_too_many_are_counted(measured, resident):
    """A server may invite so often, whatever comes of it."""
    server, refusals = measured
    body = {"room_version": "11", "event": {}, "invite_room_state": []}
    target = path("v2/invite/{}/{}", f"!room:{resident.name}", "$event")
    statuses = []
    while 429 not in statuses:
        statuses.append(resident.send(server, "PUT", target, body)[0])
    assert set(statuses) == {400, 429}
    assert refusals.news() == {("invite", "bad_event"): len(statuses) - 1, ("invite", "M_LIMIT_EXCEEDED"): 1}


def test_templates_are_counted_by_what_is_wrong_with_them(measured, alice, resident):
    server, refusals = measured
    copy = resident.create()
    right = resident.template
    for member, lie in (
        ("sender", {"sender": resident.user()}),
        ("type", {"type": "m.room.power_levels"}),
        ("content.membership", {"content": {"membership": "ban"}}),
        ("auth_events", {"auth_events": 5}),
    ):

        def template(*values, lie=lie):
            status, answer = right(*values)
            return status, {**answer, "event": {**answer["event"], **lie}}

        resident.template = template
        alice.join(copy.room_id, query=via(resident), status=502)
        assert refusals.news() == {("template", member): 1}
    resident.template = lambda *values: (200, {**right(*values)[1], "room_version": "unheard"})
    alice.join(copy.room_id, query=via(resident), status=400)
    assert refusals.news() == {("template", "room_version"): 1}
    resident.template = lambda *_: (200, {"event": []})
    alice.join(copy.room_id, query=via(resident), status=502)
    assert refusals.news() == {("answer", "unreadable"): 1}
    logged = [line for line in server.log_path.read_text().splitlines() if "a server is of no help" in line]
    assert len(logged) == 6 and resident.name in logged[0], logged


def test_answers_are_counted_by_why_they_are_not_taken(measured, alice, resident):
    server, refusals = measured
    room = alice.create_room(preset="private_chat", room_version="11")
    signing = resident.answer_invite

    def without_signature(*values):
        status, answer = signing(*values)
        return status, {"event": {**answer["event"], "signatures": {}}}

    def forged(*values):
        status, answer = signing(*values)
        return status, {"event": {**answer["event"], "signatures": {resident.name: {resident.key.id: "A" * 86}}}}

    def by_unknown_key(*values):
        status, answer = signing(*values)
        return status, {"event": {**answer["event"], "signatures": {resident.name: {"ed25519:unheard": "A" * 86}}}}

    for answer_invite, reason in (
        (without_signature, "unsigned"),
        (forged, "unsigned"),
        (by_unknown_key, "key_unknown"),
        (lambda *_: (200, b"no JSON"), "unreadable"),
    ):
        resident.answer_invite = answer_invite
        alice.post("rooms/{roomId}/invite", room, json={"user_id": resident.user()}, status=502)
        assert refusals.news() == {("answer", reason): 1}


def test_a_room_that_is_not_told_whole_is_counted(measured, alice, resident):
    _, refusals = measured
    copy, telling = resident.create(), resident.answer_send_join

    def without_powers(*values):
        status, answer = telling(*values)
        left = lambda events: [event for event in events if event["type"] != "m.room.power_levels"]
        return status, {**answer, "state": left(answer["state"]), "auth_chain": left(answer["auth_chain"])}

    resident.answer_send_join = without_powers
    resident.answer_event = resident.answer_event_auth = lambda *_: UNKNOWN
    alice.join(copy.room_id, query=via(resident), status=502)
    assert refusals.news() == {("answer", "not_whole"): 1}


@pytest.mark.parametrize("created", ["10", "1", None])
def test_a_room_is_not_of_the_version_that_a_template_tells(measured, alice, resident, created):
    """What its create event says counts, and "1" where it says nothing."""
    _, refusals = measured
    copy = resident.create(version=created)
    answer = alice.join(copy.room_id, query=via(resident), status=502)
    assert "another version" in answer["error"]
    assert refusals.news() == {("answer", "room_version"): 1}
    assert copy.room_id not in alice.get("joined_rooms")["joined_rooms"]


def keys_of(peer, count):
    return {f"ed25519:{number}": {"key": peer.key.public} for number in range(count)}


def test_keys_are_counted_by_why_they_are_not_taken(measured, network):
    server, refusals = measured
    stranger = Key("p2")
    for counted, answer in (
        (("answer", "too_large"), lambda peer: peer.published(padding="x" * 100_000)),
        (("keys", "malformed"), lambda peer: b"no JSON"),
        (("keys", "malformed"), lambda peer: peer.published(valid_until_ts="tomorrow")),
        (("keys", "other_server"), lambda peer: {**peer.published(), "server_name": "elsewhere.test"}),
        (("keys", "too_many"), lambda peer: peer.published(verify_keys=keys_of(peer, 101))),
        (("keys", "unsigned"), lambda peer: {**peer.published(), "valid_until_ts": now_ms() + 2 * DAY_MS}),
        (("keys", "unsigned"), lambda peer: peer.published(verify_keys={stranger.id: {"key": stranger.public}})),
    ):
        peer = network.peer()
        peer.answers[KEYS] = lambda _, peer=peer, answer=answer: (200, answer(peer))
        assert peer.send(server, "GET", LIST)[0] == 401
        assert refusals.news() == {counted: 1, ("publicRooms", "no_good_key"): 1}
        peer.close()


def test_what_notaries_tell_of_keys_is_counted_when_it_is_not_taken(network, tmp_path, monkeypatch):
    address, gone, notary = f"http://127.0.0.1:{free_port()}", network.peer(), network.notary
    gone.close()
    forged = signed(gone.published(), notary.name, Key(notary.key.id.removeprefix("ed25519:")))
    monkeypatch.setitem(notary.answers, "/_matrix/key/v2/query", lambda _: (200, {"server_keys": [forged]}))
    options = ["--trusted-key-servers", notary.name, "--metrics-listen", address]
    with network.server(tmp_path, *options) as server:
        assert gone.send(server, "GET", LIST)[0] == 401
        assert told(address, REFUSALS) == {("keys", "not_by_notary"): 1, ("publicRooms", "no_good_key"): 1}


def test_a_key_id_that_is_given_to_another_key_is_counted(network, tmp_path):
    """The server is started anew, as it asks again only after a while."""
    address, peer = f"http://127.0.0.1:{free_port()}", network.peer()
    server = network.server(tmp_path, "--metrics-listen", address)
    with server:
        assert peer.send(server, "GET", LIST)[0] == 200
        assert server.stop() == 0
    peer.key = Key(peer.key.id.removeprefix("ed25519:"))
    added = Key("added")
    peer.changes["verify_keys"] = {key.id: {"key": key.public} for key in (peer.key, added)}
    with server:
        assert peer.send(server, "GET", LIST, key=added)[0] == 200
        assert told(address, REFUSALS) == {("keys", "other_key"): 1}


def test_entries_of_answers_that_are_left_out_are_counted(measured, alice, resident):
    _, refusals = measured
    bob, room = resident.user("bob"), f"!burrow:{resident.name}"
    keys = {"device_keys": {bob: {"A": None, "B": 5}, resident.user("carl"): {}}, "master_keys": {bob: None}}
    claimed = {"one_time_keys": {bob: {"A": {"nameless": {}}, "B": {}}}}
    page = {"chunk": [{"room_id": room}, {"room_id": "garbage"}, 5]}
    answers = {"user/keys/query": keys, "user/keys/claim": claimed, "publicRooms": page}
    for name, answer in answers.items():
        resident.answers[path(f"v1/{name}")] = lambda _, answer=answer: (200, answer)
    alice.post("keys/query", json={"device_keys": {bob: []}})
    assert refusals.news() == {("answer", "unfit_entry"): 4}
    alice.post("keys/claim", json={"one_time_keys": {bob: {"A": "signed_curve25519"}}})
    assert refusals.news() == {("answer", "unfit_entry"): 2}
    found = alice.post("publicRooms", query={"server": resident.name})["chunk"]
    assert [shown["room_id"] for shown in found] == [room] and refusals.news() == {("answer", "unfit_entry"): 2}


def leads_to(location):
    return lambda: (302, b"", {"Location": location})


@pytest.mark.parametrize(
    "answer, reason",
    [
        (leads_to("http://default.test/file"), "redirect"),
        (lambda: (302, b""), "redirect"),
        # Round and round.
        (leads_to(FILE), "redirect"),
        (lambda: (403, {}), "status"),
        (lambda: (429, {}), "status"),
        (lambda: (503, {}), "status"),
        (lambda: (200, b'{"m.server": "elsewhere.test"}' + b" " * 100_000), "too_large"),
        (lambda: (200, b"no JSON"), "unreadable"),
        (lambda: (200, {"m.server": "https://elsewhere.test"}), "unreadable"),
        (lambda: (200, {}), "unreadable"),
        # That there is no file is usual.
        (lambda: (404, {}), None),
    ],
)
def test_well_known_files_are_counted_by_why_they_are_of_no_use(measured, network, monkeypatch, answer, reason):
    server, refusals = measured
    monkeypatch.setitem(network.files_of("default.test"), FILE, lambda _: answer())
    assert network.default_port.send(server, "GET", LIST)[0] == 200, "it is where its name says"
    assert refusals.news() == ({("well_known", reason): 1} if reason else {})


def test_a_well_known_file_that_does_not_end_is_counted(measured, network, monkeypatch):
    server, refusals = measured
    stops = threading.Event()

    def pieces():
        yield b'{"m.server":'
        stops.wait(60)

    monkeypatch.setitem(network.files_of("default.test"), FILE, lambda _: (200, pieces()))
    assert network.default_port.send(server, "GET", LIST)[0] == 200
    assert refusals.news() == {("well_known", "too_slow"): 1}
    stops.set()


def test_certificates_that_are_not_trusted_are_counted(measured, network, tmp_path):
    server, refusals = measured
    connections = Counting(refusals.address, CONNECTIONS)
    unknown = Peer("uncertain.test", Authority(tmp_path, "Nobody"))
    network.names.addresses["uncertain.test"] = ["127.0.0.1"]
    for peer in (unknown, network.peer(certified="elsewhere.test")):
        assert peer.send(server, "GET", LIST)[0] == 401 and peer.requests == []
        assert connections.news() == {("certificate",): 1}
        peer.close()


def test_private_addresses_are_counted(network, tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    with Server(tmp_path / "data", *network.options, "--metrics-listen", address) as server:
        connections, peer = Counting(address, CONNECTIONS), network.peer()
        assert peer.send(server, "GET", LIST)[0] == 401 and peer.requests == []
        assert connections.news() == {("private_address",): 1}
        peer.close()
