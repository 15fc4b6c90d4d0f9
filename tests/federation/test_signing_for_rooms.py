"""The server as the policy server of rooms, by a moderation policy list (server-server API, "Policy Servers")."""

import pytest

from harness.client import bodies, timeline
from harness.events import id_of, redacted
from harness.metrics import Counting, told
from harness.participant import Participant, path
from harness.peer import Key, canonical, verify
from harness.policies import FILE, POLICY_KEY, SIGN, protect, with_list
from harness.rooms import joined_members, via
from harness.senders import room_messages
from harness.server import free_port, sound
from harness.waiting import until

OPINIONS = "warren_policy_opinions_total"
EVENT_BYTES_MAX = 65_536


@pytest.fixture(scope="module")
def server(network, tmp_path_factory):
    """A policy server, with the list that it goes by."""
    address = f"http://127.0.0.1:{free_port()}"
    options = ["--policy-server", "on", "--metrics-listen", address]
    with sound(network.server(tmp_path_factory.mktemp("policies"), *options)) as server:
        server.metrics, server.list = address, with_list(server)
        yield server


@pytest.fixture
def room(server, alice, resident):
    """What the resident has of a room that the server protects."""
    room_id = alice.create_room(preset="public_chat", room_version="11")
    resident.join(server, room_id)
    protect(alice, room_id, server)
    return resident.catch_up(server, resident.copies[room_id])


@pytest.fixture
def key(alice):
    return alice.get(FILE)["public_keys"]["ed25519"]


def asks(peer, server, event):
    """The status and code with which the server answers a question for its signature, and what it says."""
    status, answer = peer.send(server, "POST", SIGN, event)
    return (status, answer["errcode"], answer["error"]) if status != 200 else (200, None, answer)


def assert_signs(peer, server, event, key):
    status, _, answer = asks(peer, server, event)
    assert status == 200, answer
    assert {name: list(keys) for name, keys in answer.items()} == {server.name: [POLICY_KEY]}
    verify({**redacted(event), "signatures": answer}, server.name, POLICY_KEY, key)


def assert_refuses(peer, server, event, who):
    status, code, error = asks(peer, server, event)
    assert (status, code) == (400, "M_FORBIDDEN") and f"{who} is banned by a moderation policy list" in error


def seen(alice, room, body):
    alice.sync_until(lambda answer: body in bodies(timeline(answer, room.room_id)))


# -- what it is asked for --------------------------------------------------------------------------------------------


def test_what_others_ask_for_is_signed(server, alice, resident, room, key):
    dora = resident.user("dora")
    for event in (
        resident.message(room),
        resident.event(room, "m.room.topic", {"topic": "burrows"}, state_key=""),
        resident.event(room, "m.room.member", {"membership": "join"}, sender=dora, state_key=dora),
        resident.event(room, "m.room.policy", {}, state_key="another"),
        resident.message(room, unsigned={"age": 5}),
        # Its keys cannot be had; without its server's signature nobody takes it.
        resident.message(room, key=Key("unheard")),
        # History may name more events than one of today.
        resident.message(room, prev_events=[f"${number:a>43}" for number in range(25)]),
        # Others may ask for what they have of somebody else, however old it is.
        resident.events[room.state["m.room.create", ""]],
    ):
        assert_signs(resident, server, event, key)


def test_what_creates_a_room_that_is_called_after_it_is_signed(server, alice, resident, key):
    room_id = alice.create_room(preset="public_chat", room_version="12")
    copy = resident.join(server, room_id)
    create = resident.events[copy.state["m.room.create", ""]]
    assert asks(resident, server, create)[:2] == (404, "M_NOT_FOUND")
    protect(alice, room_id, server)
    assert_signs(resident, server, create, key)


def test_rooms_that_do_not_use_it_are_none_of_its_concern(server, alice, resident, room, key):
    message = resident.message(room)
    elsewhere = resident.message(resident.create())
    assert asks(resident, server, elsewhere)[:2] == (404, "M_NOT_FOUND")
    for content in (
        {},
        {"via": server.name, "public_keys": {"ed25519": Key().public}},
        {"via": server.name},
        {"via": resident.name, "public_keys": {"ed25519": key}},
    ):
        alice.set_state(room.room_id, "m.room.policy", content)
        assert asks(resident, server, message)[:2] == (404, "M_NOT_FOUND"), content
    protect(alice, room.room_id, server)
    assert_signs(resident, server, message, key)
    alice.post("rooms/{roomId}/leave", room.room_id)
    assert asks(resident, server, message)[:2] == (404, "M_NOT_FOUND")


def test_what_is_no_event_is_not_signed(server, resident, room):
    event = resident.message(room)
    named = {"room_id": room.room_id}
    for wrong in (
        {},
        named,
        {**named, "type": "m.room.message"},
        resident.sign({name: event[name] for name in event if name != "depth"}),
        resident.sign({**event, "depth": "deep", "signatures": {}}),
        resident.message(room, "x" * 70_000),
        {**event, "content": {"msgtype": "m.text", "body": "something else"}},
        {**event, "signatures": {}},
        {**event, "signatures": {resident.name: {resident.key.id: Key().signature({})}}},
    ):
        assert asks(resident, server, wrong)[:2] == (400, "M_BAD_JSON"), wrong
    status, answer = resident.send(server, "POST", SIGN, body=b"nonsense")
    assert (status, answer["errcode"]) == (400, "M_NOT_JSON")
    status, answer = resident.send(server, "GET", SIGN)
    assert (status, answer["errcode"]) == (405, "M_UNRECOGNIZED")


def test_what_names_the_policy_server_is_not_signed(server, resident, room):
    event = resident.event(room, "m.room.policy", {}, state_key="")
    assert asks(resident, server, event)[:2] == (400, "M_FORBIDDEN")


def test_a_server_that_is_shut_out_asks_in_vain(server, alice, resident, room):
    denied = {"allow": ["*"], "deny": [resident.name.split(":")[0]]}
    alice.set_state(room.room_id, "m.room.server_acl", denied)
    assert asks(resident, server, resident.message(room))[:2] == (403, "M_FORBIDDEN")


def test_what_comes_of_questions_is_counted(server, resident, room):
    opinions, all_refusals = Counting(server.metrics, OPINIONS), Counting(server.metrics)
    refusals = lambda: {reason: count for (what, reason), count in all_refusals.news().items() if what == "sign"}
    opinions.news()
    refusals()
    asks(resident, server, resident.message(room))
    assert (opinions.news(), refusals()) == ({("recommended", ""): 1}, {})
    lift = server.list.ban("user", resident.user())
    asks(resident, server, resident.message(room))
    assert (opinions.news(), refusals()) == ({("refused", "sender"): 1}, {"sender": 1})
    lift()
    asks(resident, server, resident.message(resident.create()))
    asks(resident, server, {})
    assert (opinions.news(), refusals()) == ({}, {"M_NOT_FOUND": 1, "bad_event": 1})


def test_each_reason_for_not_signing_is_counted(server, resident, room):
    member = "@eve:elsewhere.test"
    message = resident.message(room)
    invite = resident.event(room, "m.room.member", {"membership": "invite"}, state_key=member)
    naming = resident.event(room, "m.room.policy", {}, state_key="")
    opinions, refusals = Counting(server.metrics, OPINIONS), Counting(server.metrics)
    for subject, entity, event, reason in (
        ("user", resident.user(), message, "sender"),
        ("server", resident.name, message, "senders_server"),
        ("user", member, invite, "member"),
        ("server", "elsewhere.test", invite, "members_server"),
        ("room", room.room_id, message, "room"),
        ("user", member, naming, "names_policy_server"),
    ):
        lift = server.list.ban(subject, entity)
        opinions.news()
        refusals.news()
        assert asks(resident, server, event)[:2] == (400, "M_FORBIDDEN")
        assert (opinions.news(), refusals.news()) == ({("refused", reason): 1}, {("sign", reason): 1})
        lift()


# -- whom it goes by -------------------------------------------------------------------------------------------------


def test_who_is_banned_says_nothing_until_that_is_taken_back(server, alice, resident, room, key):
    user, message = resident.user(), resident.message(room)
    for entity in (user, user.replace("someone", "some*")):
        lift = server.list.ban("user", entity)
        assert_refuses(resident, server, message, "the sender")
        lift()
        assert_signs(resident, server, message, key)
    for entity in (resident.name, resident.name.split(":")[0], "PEER*.test"):
        lift = server.list.ban("server", entity)
        assert_refuses(resident, server, message, "the sender's server")
        lift()
        assert_signs(resident, server, message, key)
    lift = server.list.ban("room", room.room_id)
    assert_refuses(resident, server, message, "the room")
    lift()
    # Nor does a rule count any more that was redacted some seconds ago.
    content = {"entity": user, "recommendation": "m.ban", "reason": "spam"}
    owner, rules = server.list.owner, server.list.room_id
    rule = owner.set_state(rules, "m.policy.rule.user", content, "redacted")
    assert_refuses(resident, server, message, "the sender")
    owner.put("rooms/{roomId}/redact/{eventId}/{txnId}", rules, rule, "redaction")
    until(lambda: asks(resident, server, message)[0] == 200, seconds=30)
    assert_signs(resident, server, message, key)


def test_who_is_banned_may_go_and_be_turned_out(server, alice, resident, room, key):
    dora = resident.user("dora")
    membership = lambda what, sender, user: resident.event(
        room, "m.room.member", {"membership": what}, sender=sender, state_key=user
    )
    lift = server.list.ban("user", dora)
    for what in ("join", "knock"):
        assert_refuses(resident, server, membership(what, dora, dora), "the sender")
    assert_refuses(resident, server, membership("invite", room.user, dora), "the user")
    assert_signs(resident, server, membership("leave", dora, dora), key)
    for what in ("leave", "ban"):
        assert_signs(resident, server, membership(what, room.user, dora), key)
    lift()


# -- rooms that it is in itself --------------------------------------------------------------------------------------


def test_its_own_users_events_go_out_signed(server, alice, resident, room, key):
    alice.send(room.room_id, "hello")
    resident.until(lambda: "hello" in resident.bodies)
    event = next(event for event in resident.pdus if event["content"].get("body") == "hello")
    verify(redacted(event), server.name, POLICY_KEY, key)
    assert len(event["signatures"][server.name]) == 2
    assert resident.asked(SIGN) == []
    mallory = alice.register("mallory")
    mallory.join(room.room_id)
    lift = server.list.ban("user", mallory.user_id)
    refused = mallory.send(room.room_id, "spam", status=400, errcode="M_FORBIDDEN")
    assert "the sender is banned by a moderation policy list" in refused["error"]
    mallory.post("rooms/{roomId}/leave", room.room_id)
    assert mallory.user_id not in joined_members(alice, room.room_id)
    mallory.join(room.room_id, status=400, errcode="M_FORBIDDEN")
    alice.post("rooms/{roomId}/invite", room.room_id, json={"user_id": mallory.user_id}, status=400)
    lift()
    mallory.join(room.room_id)
    mallory.send(room.room_id, "hello again")
    resident.until(lambda: "hello again" in resident.bodies)
    assert "spam" not in resident.bodies


def test_what_others_send_unsigned_is_judged_as_it_comes(server, alice, resident, room, key):
    event = resident.message(room, "unsigned")
    assert resident.transact(server, [event]) == {id_of(event): {}}
    seen(alice, room, "unsigned")
    (stored,) = resident.ask(server, "GET", path("v1/event/{}", id_of(event)))["pdus"]
    verify(redacted(stored), server.name, POLICY_KEY, key)
    resident.catch_up(server, room)
    lift = server.list.ban("user", resident.user())
    before = told(server.metrics, OPINIONS).get(("refused", "sender"), 0)
    spam = resident.message(room, "spam")
    assert resident.transact(server, [spam]) == {id_of(spam): {}}
    until(lambda: told(server.metrics, OPINIONS).get(("refused", "sender"), 0) > before)
    lift()
    after = resident.message(room, "after it")
    resident.transact(server, [after])
    seen(alice, room, "after it")
    assert bodies(alice.messages(room.room_id)["chunk"]) == ["after it", "unsigned"]
    alice.get("rooms/{roomId}/event/{eventId}", room.room_id, id_of(spam), status=404)


def test_who_is_banned_neither_joins_nor_is_invited_and_leaves(server, alice, network, room):
    other = network.peer(kind=Participant)
    dora = other.user("dora")
    lift = server.list.ban("user", dora)
    status, answer = other.send_join(server, other.make_join(server, room.room_id, dora))
    assert (status, answer["errcode"]) == (400, "M_FORBIDDEN") and "is banned" in answer["error"]
    alice.post("rooms/{roomId}/invite", room.room_id, json={"user_id": dora}, status=400, errcode="M_FORBIDDEN")
    assert not other.versions_asked("invite")
    lift()
    copy = other.join(server, room.room_id, dora)
    lift = server.list.ban("user", dora)
    other.leave(server, copy)
    alice.sync_until(lambda _: dora not in joined_members(alice, room.room_id))
    lift()


def test_a_room_may_be_rid_of_it_at_any_time(server, alice, room):
    lift = server.list.ban("room", room.room_id)
    alice.send(room.room_id, "nothing is signed here", status=400, errcode="M_FORBIDDEN")
    alice.set_state(room.room_id, "m.room.policy", {})
    alice.send(room.room_id, "nor need it be")
    lift()


def test_a_room_that_names_another_key_is_told_so(server, alice, room):
    alice.set_state(room.room_id, "m.room.policy", {"via": server.name, "public_keys": {"ed25519": Key().public}})
    refused = alice.send(room.room_id, "hello", status=403, errcode="M_FORBIDDEN")
    assert "with a key (m.room.policy)" in refused["error"]


# -- its lists -------------------------------------------------------------------------------------------------------


def test_the_operator_is_told_of_lists_that_say_nothing(network, tmp_path):
    with sound(network.server(tmp_path, "--policy-server", "on", "--policy-lists", "!nowhere:elsewhere.test")) as server:
        (line,) = [line for line in server.log().splitlines() if "policy_lists" in line]
        assert "WARN" in line and "!nowhere:elsewhere.test" in line
        there = with_list(server)
        (first, second) = [line for line in server.log().splitlines() if "policy_lists" in line]
        assert there.room_id not in first + second


def test_an_event_that_has_no_place_for_the_signature_closes_no_history(server, alice, resident, key):
    """It is as one that is refused, and the server asks nobody about it, as it would itself."""
    copy, asked = resident.create(), Counting(server.metrics, "warren_policy_signatures_total")
    asked.news()
    say = lambda text: resident.place(copy, resident.message(copy, text))
    say("first")
    large = say("x" * (EVENT_BYTES_MAX - 36 - len(canonical(resident.message(copy, "")))))
    say("last")
    assert 0 < EVENT_BYTES_MAX - len(canonical(large)) < 100
    content = {"via": server.name, "public_keys": {"ed25519": key}}
    resident.next(copy, "m.room.policy", content, state_key="")
    alice.join(copy.room_id, query=via(resident))
    assert bodies(room_messages(alice, copy.room_id)) == ["first", "last"]
    alice.get("rooms/{roomId}/event/{eventId}", copy.room_id, id_of(large), status=404)
    assert asked.news() == {}
