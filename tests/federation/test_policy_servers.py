"""Rooms with a policy server: who asks it, and what comes of its answers (server-server API, "Policy Servers")."""

import concurrent.futures
import json
import threading
import time

import pytest

from harness.client import Client, address, bodies, timeline, unique
from harness.clock import Clock
from harness.events import id_of, redacted
from harness.metrics import told
from harness.participant import Participant, path
from harness.peer import Key, verify
from harness.policies import FILE, POLICY_KEY, SIGN, enable
from harness.rooms import joined_members, see, state_ids
from harness.senders import room_messages
from harness.server import free_port, sound
from harness.waiting import until

# A policy server is given more.
SECONDS_MAX = 9
# It is not given so many.
HANGS_SECONDS = 90
# For which one that is out is left alone, and more.
PAUSE_SECONDS = 61
# More than one request has events signed.
GUESTS = 55
# With sixty questions at a time they would take two pauses of more than a minute together.
MISSED = 130


def room_of(alice, server, policy):
    """A room that uses the policy server, in which a user of it is."""
    room_id = alice.create_room(preset="public_chat", room_version="11")
    policy.join(server, room_id)
    enable(alice, room_id, policy)
    return room_id


def assert_signed(event, policy):
    verify(redacted(event), policy.name, POLICY_KEY, policy.policy_key.public)


def sent(policy, body):
    """Waits for a message of ours, and answers it as it came."""
    policy.until(lambda: body in policy.bodies)
    return next(event for event in policy.pdus if event["content"].get("body") == body)


def test_our_events_are_signed_before_they_are_sent(server, alice, policy):
    room_id = room_of(alice, server, policy)
    assert policy.asked(SIGN) == [], "a policy server is not asked about m.room.policy"
    alice.send(room_id, "hello")
    event = sent(policy, "hello")
    assert_signed(event, policy)
    (request,) = policy.asked(SIGN)
    assert request.method == "POST"
    assert request.headers["Authorization"].startswith(f'X-Matrix origin="{server.name}",destination="{policy.name}"')
    asked = json.loads(request.body)
    del event["signatures"][policy.name]
    event.pop("unsigned", None)
    assert asked == event
    # State events and those of memberships are no exception.
    alice.set_state(room_id, "m.room.topic", {"topic": "burrows"})
    carol = alice.register("carol")
    carol.join(room_id)
    carol.put("profile/{userId}/{keyName}", carol.user_id, "displayname", json={"displayname": "Carol"})
    policy.until(lambda: len(policy.asked(SIGN)) == 4)


def test_what_the_policy_server_refuses_is_not_sent(server, alice, policy):
    room_id = room_of(alice, server, policy)
    refused = alice.send(room_id, "spam", status=400, errcode="M_FORBIDDEN")
    assert refused["error"] == "The message appears to contain possible spam"
    alice.set_state(room_id, "m.room.topic", {"topic": "spam"}, status=400, errcode="M_FORBIDDEN")
    # Its words are passed on whatever they are, but for those about this server's own request.
    for answer, status, errcode in (
        ((403, {"errcode": "ORG.EXAMPLE_SPAM", "error": "no"}), 403, "ORG.EXAMPLE_SPAM"),
        ((404, {"errcode": "M_NOT_FOUND", "error": "no room of mine"}), 404, "M_NOT_FOUND"),
        ((429, {"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 7000}), 429, "M_LIMIT_EXCEEDED"),
        ((401, {"errcode": "M_UNKNOWN_TOKEN", "error": "who are you"}), 502, "M_UNKNOWN"),
        ((500, {}), 502, "M_UNKNOWN"),
        ((200, {policy.name: {}}), 403, "M_FORBIDDEN"),
        ((200, {policy.name: {POLICY_KEY: Key().signature({})}}), 403, "M_FORBIDDEN"),
        ((200, [1]), 502, "M_UNKNOWN"),
    ):
        sign, policy.answers[SIGN] = policy.answers[SIGN], lambda _, answer=answer: answer
        told = alice.send(room_id, "hello", status=status, errcode=errcode)
        assert told.get("retry_after_ms") == answer[1].get("retry_after_ms") if status == 429 else True
        policy.answers[SIGN] = sign
    alice.send(room_id, "the only one")
    sent(policy, "the only one")
    assert policy.bodies == ["the only one"]
    assert bodies(alice.messages(room_id)["chunk"]) == ["the only one"]


OF_THE_CLIENT = ["M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_LOCKED", "M_USER_DEACTIVATED", "M_CONSENT_NOT_GIVEN"]


@pytest.mark.parametrize("code", OF_THE_CLIENT)
def test_a_policy_server_ends_no_session_of_a_user(server, alice, policy, code):
    """Its words are passed on, but no code that a client takes for one about its own session or account."""
    room_id = room_of(alice, server, policy)
    for status in (400, 403, 404, 429):
        policy.answers[SIGN] = lambda _, status=status: (status, {"errcode": code, "error": "no", "soft_logout": False})
        told = alice.send(room_id, "hello", status=status, errcode="M_UNKNOWN")
        assert told["error"] == "no" and "soft_logout" not in told
    assert policy.bodies == []


def signature(policy, event, key):
    return policy.sign(event, key)["signatures"][policy.name][key.id]


def right(policy, event):
    return signature(policy, event, policy.policy_key)


# Signatures in an answer or event that do not hold, or are not where they are looked for.
WRONG = {
    "of another event": lambda policy, event: {policy.name: {POLICY_KEY: right(policy, {**event, "depth": event["depth"] + 1})}},
    "by its other key": lambda policy, event: {policy.name: {POLICY_KEY: signature(policy, event, policy.key)}},
    "by its other key, and called so": lambda policy, event: {
        policy.name: {policy.key.id: signature(policy, event, policy.key)}
    },
    "by a key that the room does not name": lambda policy, event: {
        policy.name: {POLICY_KEY: signature(policy, event, Key("policy_server"))}
    },
    "under another key's id": lambda policy, event: {policy.name: {"ed25519:policy": right(policy, event)}},
    "under another server's name": lambda policy, event: {"elsewhere.test": {POLICY_KEY: right(policy, event)}},
    "cut off": lambda policy, event: {policy.name: {POLICY_KEY: right(policy, event)[:-1]}},
}


def answer_wrongly(policy, wrong, only=""):
    """Lets the policy server answer so, if it is asked about an event with that text."""
    sign = policy.answers[SIGN]

    def answer(request):
        asked = json.loads(request.body)
        return (200, WRONG[wrong](policy, asked)) if only in str(asked["content"]) else sign(request)

    policy.answers[SIGN] = answer


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_signature_sends_nothing_of_ours(server, alice, policy, wrong):
    """Neither a message nor state, an invite nor a join by way of this server; what is tried again is asked about anew."""
    room_id, sign, dora = room_of(alice, server, policy), policy.answers[SIGN], policy.user("dora")
    before, message = state_ids(alice, room_id), {"msgtype": "m.text", "body": "hello"}
    again = address("rooms/{roomId}/send/{eventType}/{txnId}", room_id, "m.room.message", unique("txn"))
    answer_wrongly(policy, wrong)
    alice.put(again, json=message, status=403, errcode="M_FORBIDDEN")
    alice.set_state(room_id, "m.room.topic", {"topic": "x"}, status=403, errcode="M_FORBIDDEN")
    alice.post("rooms/{roomId}/invite", room_id, json={"user_id": dora}, status=403, errcode="M_FORBIDDEN")
    status, answer = policy.send_join(server, policy.make_join(server, room_id, dora))
    assert status in (400, 403), answer
    assert len(policy.asked(SIGN)) == 4 and not policy.versions_asked("invite")
    assert state_ids(alice, room_id) == before and bodies(alice.messages(room_id)["chunk"]) == []
    policy.answers[SIGN] = sign
    alice.put(again, json=message)
    assert_signed(sent(policy, "hello"), policy)
    assert len(policy.asked(SIGN)) == 5
    assert [event["type"] for event in policy.pdus] == ["m.room.policy", "m.room.message"]


@pytest.mark.parametrize("wrong", WRONG)
def test_an_event_of_another_that_is_wrongly_signed_is_asked_about_anew(server, alice, policy, network, wrong):
    """It is told on with the signature that the policy server gives."""
    room_id = room_of(alice, server, policy)
    other = network.peer(kind=Participant)
    event = other.message(other.join(server, room_id), "hello")
    asked = len(policy.asked(SIGN))
    signed = {**event, "signatures": {**event["signatures"], **WRONG[wrong](policy, event)}}
    assert other.transact(server, [signed]) == {id_of(event): {}}
    alice.sync_until(lambda answer: "hello" in bodies(timeline(answer, room_id)))
    assert len(policy.asked(SIGN)) == asked + 1
    (told,) = other.ask(server, "GET", path("v1/event/{}", id_of(event)))["pdus"]
    assert_signed(told, policy)


@pytest.mark.parametrize("wrong", WRONG)
def test_an_event_of_another_with_a_wrong_answer_is_kept_from_clients(server, alice, policy, network, wrong):
    """And nothing of ours follows it, as if the policy server had refused it."""
    room_id = room_of(alice, server, policy)
    other = network.peer(kind=Participant)
    copy = other.join(server, room_id)
    answer_wrongly(policy, wrong, only="kept back")
    kept, after = other.message(copy, "kept back"), other.message(copy, "after it")
    asked = len(policy.asked(SIGN))
    assert other.transact(server, [kept]) == {id_of(kept): {}}
    other.transact(server, [after])
    alice.sync_until(lambda answer: "after it" in bodies(timeline(answer, room_id)))
    assert bodies(alice.messages(room_id)["chunk"]) == ["after it"]
    alice.get("rooms/{roomId}/event/{eventId}", room_id, id_of(kept), status=404)
    assert other.catch_up(server, copy).ends == [id_of(after)]
    assert len(policy.asked(SIGN)) == asked + 2


def test_events_of_others_need_its_signature(server, alice, policy, network):
    room_id = room_of(alice, server, policy)
    other = network.peer(kind=Participant)
    copy = other.join(server, room_id)
    asked = len(policy.asked(SIGN))
    # One that comes without is asked about, and told on with the signature.
    event = other.message(copy, "hello")
    assert other.transact(server, [event]) == {id_of(event): {}}
    alice.sync_until(lambda answer: "hello" in bodies(timeline(answer, room_id)))
    assert len(policy.asked(SIGN)) == asked + 1
    (told,) = other.ask(server, "GET", path("v1/event/{}", id_of(event)))["pdus"]
    assert_signed(told, policy)
    # One that is refused is kept from clients, and nothing of ours follows it.
    other.catch_up(server, copy)
    spam, after = other.message(copy, "spam"), other.message(copy, "after it")
    assert other.transact(server, [spam]) == {id_of(spam): {}}
    other.transact(server, [after])
    alice.sync_until(lambda answer: "after it" in bodies(timeline(answer, room_id)))
    assert bodies(alice.messages(room_id)["chunk"]) == ["after it", "hello"]
    alice.get("rooms/{roomId}/event/{eventId}", room_id, id_of(spam), status=404)
    assert other.catch_up(server, copy).ends == [id_of(after)]
    # One that comes signed is not asked about.
    asked = len(policy.asked(SIGN))
    event = policy.message(policy.catch_up(server, policy.copies[room_id]), "signed")
    policy.transact(server, [policy.sign(event, policy.policy_key)])
    alice.sync_until(lambda answer: "signed" in bodies(timeline(answer, room_id)))
    assert len(policy.asked(SIGN)) == asked


def test_many_events_that_it_has_to_sign_hold_up_none(server, alice, policy, network):
    """More than a server is asked of anything else at a time: what was missed in a short outage."""
    room_id = room_of(alice, server, policy)
    other = network.peer(kind=Participant)
    copy = other.join(server, room_id)
    asked = len(policy.asked(SIGN))
    said = [other.place(copy, other.message(copy, f"{number}")) for number in range(MISSED)]
    last = policy.sign(other.message(copy, "signed"), policy.policy_key)
    assert other.transact(server, [last]) == {id_of(last): {}}
    see(alice, room_id, id_of(last))
    assert bodies(room_messages(alice, room_id)) == [event["content"]["body"] for event in [*said, last]]
    assert len(policy.asked(SIGN)) == asked + MISSED


def test_who_comes_and_who_is_invited_is_asked_about(server, alice, policy):
    room_id = room_of(alice, server, policy)
    sign = policy.answers[SIGN]
    policy.answers[SIGN] = lambda _: (400, {"errcode": "M_FORBIDDEN", "error": "not them"})
    dora, invites = policy.user("dora"), []

    def answer_invite(_values, _query, body):
        invites.append(body["event"])
        return 200, {"event": policy.sign(body["event"])}

    policy.answer_invite = answer_invite
    alice_invites = lambda **more: alice.post("rooms/{roomId}/invite", room_id, json={"user_id": dora}, **more)
    status, answer = policy.send_join(server, policy.make_join(server, room_id, dora))
    assert (status, answer["errcode"], answer["error"]) == (400, "M_FORBIDDEN", "not them")
    alice_invites(status=400, errcode="M_FORBIDDEN")
    policy.answers[SIGN] = sign
    alice_invites()
    (invite,) = invites
    assert_signed(invite, policy)
    assert alice.state(room_id, "m.room.member", dora)["membership"] == "invite"
    policy.join(server, room_id, dora)
    assert alice.state(room_id, "m.room.member", dora)["membership"] == "join"


def test_a_dead_policy_server_holds_up_its_own_room_alone(server, alice, policy, network):
    room_id = room_of(alice, server, policy)
    quiet = alice.create_room(preset="public_chat", room_version="11")
    policy.join(server, quiet)
    other = network.peer(kind=Participant)
    copies = [other.join(server, room) for room in (room_id, quiet)]
    hangs = threading.Event()
    policy.answers[SIGN] = lambda _: hangs.wait(HANGS_SECONDS) and (500, {})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(alice.send, room_id, "hello", status=502)
        begun = time.monotonic()
        events = [other.message(copy, f"to {copy.room_id}") for copy in copies]
        assert other.transact(server, events) == {id_of(event): {} for event in events}
        Client(server.base_url, alice.user_id, alice.token).sync_until(
            lambda answer: f"to {quiet}" in bodies(timeline(answer, quiet))
        )
        assert time.monotonic() - begun < 8, "nobody else waits for it"
        waiting.result()
    # The room can do without it at any time.
    alice.set_state(room_id, "m.room.policy", {})
    alice.send(room_id, "without")
    other.until(lambda: "without" in other.bodies)
    hangs.set()


def test_a_room_that_names_this_server_says_so_until_it_names_another(server, alice, policy):
    """The operator has nothing to do with it, and others would refuse what is not signed."""
    room_id = room_of(alice, server, policy)
    keys = {"ed25519": policy.policy_key.public}
    alice.set_state(room_id, "m.room.policy", {"via": server.name, "public_keys": keys})
    refused = alice.send(room_id, "hello", status=403, errcode="M_FORBIDDEN")
    assert "policy server" in refused["error"] and "operator" not in refused["error"]
    enable(alice, room_id, policy)
    alice.send(room_id, "signed")
    assert_signed(sent(policy, "signed"), policy)


def test_a_room_may_change_its_policy_server_while_it_signs(server, alice, policy):
    """It is asked anew, once."""
    room_id, old = room_of(alice, server, policy), policy.policy_key
    sign, begun, changed = policy.answers[SIGN], threading.Event(), threading.Event()

    def answer(request):
        asked = json.loads(request.body)
        if begun.is_set():
            return sign(request)
        begun.set()
        assert changed.wait(SECONDS_MAX)
        return 200, {policy.name: {POLICY_KEY: signature(policy, asked, old)}}

    policy.answers[SIGN] = answer
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sending = pool.submit(Client(server.base_url, alice.user_id, alice.token).send, room_id, "hello")
        assert begun.wait(SECONDS_MAX)
        policy.policy_key = Key("policy_server")
        enable(alice, room_id, policy)
        changed.set()
        sending.result()
    assert_signed(sent(policy, "hello"), policy)
    assert len(policy.asked(SIGN)) == 2


def test_what_a_silent_policy_server_was_not_asked_about_waits_for_it(server, alice, policy, network):
    room_id = room_of(alice, server, policy)
    other = network.peer(kind=Participant)
    copy = other.join(server, room_id)
    sign = policy.answers[SIGN]
    hangs = threading.Event()
    policy.answers[SIGN] = lambda _: hangs.wait(HANGS_SECONDS) and (500, {})
    alice.send(room_id, "hello", status=502)
    asked = len(policy.asked(SIGN))
    # It is left alone for a while: what others send is taken in, and not decided upon.
    early = other.message(other.catch_up(server, copy), "early")
    assert other.transact(server, [early]) == {id_of(early): {}}
    client = Client(server.base_url, alice.user_id, alice.token)
    assert "early" not in bodies(timeline(client.sync(), room_id))
    assert len(policy.asked(SIGN)) == asked
    hangs.set()
    policy.answers[SIGN] = sign
    alice.send(room_id, "it is back")
    other.transact(server, [other.message(other.catch_up(server, copy), "late")])
    alice.sync_until(lambda _: {"early", "late"} <= set(bodies(alice.messages(room_id)["chunk"])))


BUSY = 429, {"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 60_000}


@pytest.mark.parametrize("answer", [(503, {}), (502, {}), BUSY], ids=["out", "gone", "busy"])
def test_what_it_had_no_time_for_waits_for_it(server, alice, policy, network, answer):
    room_id = room_of(alice, server, policy)
    other = network.peer(kind=Participant)
    copy = other.join(server, room_id)
    sign, answered = policy.answers[SIGN], threading.Event()

    def busy(_):
        answered.set()
        return answer

    policy.answers[SIGN] = busy
    early = other.message(copy, "early")
    assert other.transact(server, [early]) == {id_of(early): {}}
    assert answered.wait(SECONDS_MAX)
    policy.answers[SIGN] = sign
    alice.send(room_id, "it is back")
    other.transact(server, [other.message(other.catch_up(server, copy), "late")])
    alice.sync_until(lambda _: {"early", "late"} <= set(bodies(alice.messages(room_id)["chunk"])))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_event_that_it_is_said_to_be_out_for_holds_up_no_other_room(server, alice, policy, network, status):
    """Whoever finds one would else have it asked about nothing."""
    rooms, other = [room_of(alice, server, policy) for _ in range(2)], network.peer(kind=Participant)
    bad, honest = [other.join(server, room_id) for room_id in rooms]
    sign, is_out = policy.answers[SIGN], threading.Event()

    def answer(request):
        if json.loads(request.body)["content"].get("body") == "bad":
            is_out.set()
            return status, {}
        return sign(request)

    policy.answers[SIGN] = answer
    other.transact(server, [other.message(bad, "bad")])
    assert is_out.wait(SECONDS_MAX)
    for text in ("hello", "again"):
        other.transact(server, [other.place(honest, other.message(honest, text))])
        client = Client(server.base_url, alice.user_id, alice.token)
        client.sync_until(lambda answer, text=text: text in bodies(timeline(answer, honest.room_id)))
    assert "bad" not in bodies(alice.messages(bad.room_id)["chunk"])


def test_an_event_that_it_hangs_on_holds_up_no_other_room(server, alice, policy, network):
    """While nothing else is asked, it could as well be gone; that is seen by what it has signed before."""
    rooms, other = [room_of(alice, server, policy) for _ in range(2)], network.peer(kind=Participant)
    bad, honest = [other.join(server, room_id) for room_id in rooms]
    alice.send(bad.room_id, "signed before")
    sign, hangs, seen = policy.answers[SIGN], threading.Event(), threading.Event()

    def answer(request):
        if json.loads(request.body)["content"].get("body") == "bad":
            hangs.wait(HANGS_SECONDS)
            return 500, {}
        seen.set()
        return sign(request)

    policy.answers[SIGN] = answer
    try:
        other.transact(server, [other.message(bad, "bad")])
        assert seen.wait(HANGS_SECONDS / 2)
        other.transact(server, [other.place(honest, other.message(honest, "hello"))])
        client = Client(server.base_url, alice.user_id, alice.token)
        client.sync_until(lambda answer: "hello" in bodies(timeline(answer, honest.room_id)))
    finally:
        hangs.set()


def test_what_it_is_asked_about_in_vain_time_and_again_is_kept_from_clients(network, tmp_path, policy):
    """It would else wait for a day, and what follows it be told its state."""
    clock, metrics = Clock(tmp_path), f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", metrics)
    server.environment = clock.environment
    sign, asked = policy.answers[SIGN], []

    def out(request):
        asked.append(id_of(json.loads(request.body)))
        return 503, {}

    with sound(server):
        alice = Client(server.base_url).register("alice")
        room_id, other = room_of(alice, server, policy), network.peer(kind=Participant)
        copy = other.join(server, room_id)
        policy.answers[SIGN] = out
        gone = other.message(copy, "gone")
        other.transact(server, [gone])
        until(lambda: id_of(gone) in asked)

        def goes_without():
            clock.passes(PAUSE_SECONDS)
            # A sign of life has what waits asked about at once.
            other.transact(server, [other.message(copy, "news")])
            return told(metrics, "warren_federation_events_total").get(("soft_failed", "policy_server"))

        until(goes_without, SECONDS_MAX * 5)
        assert asked.count(id_of(gone)) >= 3
        policy.answers[SIGN] = sign
        alice.send(room_id, "it is back")
        other.transact(server, [other.message(other.catch_up(server, copy), "late")])
        alice.sync_until(lambda _: "late" in bodies(alice.messages(room_id, limit=100)["chunk"]))
        assert "gone" not in bodies(alice.messages(room_id, limit=100)["chunk"])
        alice.get("rooms/{roomId}/event/{eventId}", room_id, id_of(gone), status=404)


def test_a_room_of_many_guests_is_closed_to_them(server, alice, policy):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    opened = alice.set_state(room_id, "m.room.guest_access", {"guest_access": "can_join"})
    nobody = Client(server.base_url)
    for _ in range(GUESTS):
        nobody.signed_in(nobody.post("register", query={"kind": "guest"})).join(room_id)
    policy.join(server, room_id)
    enable(alice, room_id, policy)
    assert len(joined_members(alice, room_id)) == GUESTS + 2
    alice.put("rooms/{roomId}/redact/{eventId}/{txnId}", room_id, opened, unique("txn"))
    until(lambda: joined_members(alice, room_id) == {alice.user_id, policy.user()})
    assert len(policy.asked(SIGN)) == GUESTS + 1


def fail(policy):
    """Lets the policy server answer that it has failed. Answers how to let it sign again."""
    sign, policy.answers[SIGN] = policy.answers[SIGN], lambda _: (500, {})
    return lambda: policy.answers.update({SIGN: sign})


def test_a_room_is_told_of_a_profile_as_soon_as_its_policy_server_signs_that(server, alice, policy):
    room_id = room_of(alice, server, policy)
    quiet = alice.create_room()
    recover = fail(policy)
    alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "Renamed"})
    shown = lambda room: alice.state(room, "m.room.member", alice.user_id).get("displayname")
    assert shown(quiet) == "Renamed" and shown(room_id) != "Renamed"
    asked = len(policy.asked(SIGN))
    until(lambda: len(policy.asked(SIGN)) > asked)
    assert shown(room_id) != "Renamed"
    recover()
    until(lambda: shown(room_id) == "Renamed")


def test_a_room_that_refuses_a_profile_is_not_told_of_it_again(server, alice, policy):
    room_id = room_of(alice, server, policy)
    shown = lambda: alice.state(room_id, "m.room.member", alice.user_id).get("displayname")
    alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "a spam name"})
    # A room whose policy server fails at that time is tried again; by then this one would have been, too.
    other = room_of(alice, server, policy)
    carol = alice.register("carol")
    carol.join(other)
    recover = fail(policy)
    asked = len(policy.asked(SIGN))
    carol.put("profile/{userId}/{keyName}", carol.user_id, "displayname", json={"displayname": "Carol"})
    until(lambda: len(policy.asked(SIGN)) >= asked + 2)
    recover()
    until(lambda: alice.state(other, "m.room.member", carol.user_id).get("displayname") == "Carol")
    assert shown() != "a spam name"
    asked = [json.loads(request.body) for request in policy.asked(SIGN)]
    assert sum(event["content"].get("displayname") == "a spam name" for event in asked) == 1


def test_guests_leave_as_soon_as_the_policy_server_signs_that(server, alice, policy):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    opened = alice.set_state(room_id, "m.room.guest_access", {"guest_access": "can_join"})
    nobody = Client(server.base_url)
    guest = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
    guest.join(room_id)
    policy.join(server, room_id)
    enable(alice, room_id, policy)
    sign = policy.answers[SIGN]
    # The redaction is signed, and nobody's leave.
    is_leave = lambda request: json.loads(request.body)["content"].get("membership") == "leave"
    policy.answers[SIGN] = lambda request: (500, {}) if is_leave(request) else sign(request)
    alice.put("rooms/{roomId}/redact/{eventId}/{txnId}", room_id, opened, unique("txn"))
    until(lambda: len([request for request in policy.asked(SIGN) if is_leave(request)]) > 1)
    assert guest.user_id in joined_members(alice, room_id)
    policy.answers[SIGN] = sign
    until(lambda: joined_members(alice, room_id) == {alice.user_id, policy.user()})


def test_a_policy_server_that_leaves_is_none(server, alice, policy):
    room_id = room_of(alice, server, policy)
    alice.send(room_id, "spam", status=400)
    alice.post("rooms/{roomId}/kick", room_id, json={"user_id": policy.user()})
    asked = len(policy.asked(SIGN))
    alice.send(room_id, "spam")
    assert len(policy.asked(SIGN)) == asked


def test_a_server_is_no_policy_server_unless_it_is_told_to_be(server, alice, resident):
    """For when it is see `test_signing_for_rooms.py`."""
    status, answer = resident.send(server, "POST", SIGN, {"type": "m.room.message"})
    assert (status, answer["errcode"]) == (404, "M_UNRECOGNIZED")
    alice.get(FILE, status=404, errcode="M_NOT_FOUND")
