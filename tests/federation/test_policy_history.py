"""History in rooms with a policy server, which is asked about it as about what is said now (server-server API, "Policy Servers")."""

import json
import threading
import time

import pytest

from harness.client import Client, bodies, timeline
from harness.clock import Clock
from harness.events import id_of, redacted
from harness.participant import path
from harness.peer import verify
from harness.policies import POLICY_KEY, SIGN
from harness.rooms import everything, via
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

# As long as a client waits, and then some.
SECONDS_MAX = 20
# More than another server gives at once.
MANY = 120
# For which a gap is left alone, and more.
PAUSE_SECONDS = 31
# Events that are asked about at a time.
AT_ONCE = 16
# How often it is seen beside that whether it signs at all.
PROBES = 5
# More than are asked about at a time.
REFUSED_MAX = AT_ONCE + 1


@pytest.fixture
def warren(network, tmp_path):
    """A server of the test's own, that it starts anew."""
    with sound(network.server(tmp_path)) as server:
        yield server


@pytest.fixture
def released():
    """Until it is set, the policy server does not answer."""
    event = threading.Event()
    yield event
    event.set()


def say(policy, copy, *texts):
    return [policy.place(copy, policy.message(copy, text)) for text in texts]


def say_signed(policy, copy, text):
    event = policy.sign(policy.message(copy, text), policy.policy_key)
    policy.know(event)
    return policy.place(copy, event)


def use(policy, copy):
    keys = {"ed25519": policy.policy_key.public}
    return policy.next(copy, "m.room.policy", {"via": policy.name, "public_keys": keys}, state_key="")


def events_asked_about(policy):
    return [json.loads(request.body) for request in policy.asked(SIGN)]


def test_what_it_refuses_of_history_is_not_shown_and_what_lies_before_it_is(server, alice, policy):
    """Each is asked about once; what it has signed is told on with the signature."""
    copy = policy.create()
    _, spam, second, _ = say(policy, copy, "first", "spam", "second", "third")
    naming = use(policy, copy)
    signed = say_signed(policy, copy, "signed")
    alice.join(copy.room_id, query=via(policy))
    room = copy.room_id
    assert bodies(room_messages(alice, room)) == ["first", "second", "third", "signed"]
    alice.get("rooms/{roomId}/event/{eventId}", room, id_of(spam), status=404)
    alice.get("rooms/{roomId}/context/{eventId}", room, id_of(spam), status=404)
    context = alice.get("rooms/{roomId}/context/{eventId}", room, id_of(second), query={"limit": 4})
    assert bodies(context["events_before"])[:1] == ["first"]
    whole = '{"room":{"timeline":{"limit":50}}}'
    synced = Client(server.base_url, alice.user_id, alice.token).sync(filter=whole)
    assert "spam" not in bodies(timeline(synced, room))
    asked = [id_of(event) for event in events_asked_about(policy)]
    assert len(set(asked)) == len(asked) and {id_of(spam), id_of(second)} <= set(asked)
    assert not {id_of(naming), id_of(signed)} & set(asked)
    (told,) = policy.ask(server, "GET", path("v1/event/{}", id_of(second)))["pdus"]
    verify(redacted(told), policy.name, POLICY_KEY, policy.policy_key.public)
    # Nor is anything asked about again.
    assert bodies(room_messages(alice, room)) == ["first", "second", "third", "signed"]
    assert len(policy.asked(SIGN)) == len(asked)


def test_what_it_refuses_stays_part_of_the_rooms_state(server, alice, policy):
    copy = policy.create()
    say(policy, copy, "first")
    topic = policy.next(copy, "m.room.topic", {"topic": "spam"}, state_key="")
    say(policy, copy, "second")
    use(policy, copy)
    alice.join(copy.room_id, query=via(policy))
    shown = everything(alice, copy.room_id)
    assert bodies(shown) == ["first", "second"]
    assert id_of(topic) not in [event["event_id"] for event in shown]
    assert id_of(topic) in [id_of(event) for event in events_asked_about(policy)]
    assert alice.state(copy.room_id, "m.room.topic")["topic"] == "spam"


def test_what_a_redaction_took_is_not_shown_again_though_it_refuses_that(server, alice, policy):
    """Others give the message whole that the redaction names: it was said to be spam."""
    copy = policy.create()
    first, _ = say(policy, copy, "first", "second")
    redaction = policy.next(copy, "m.room.redaction", {"redacts": id_of(first), "reason": "spam"})
    use(policy, copy)
    alice.join(copy.room_id, query=via(policy))
    shown = {event["event_id"]: event for event in everything(alice, copy.room_id)}
    assert bodies(shown.values()) == [None, "second"]
    assert shown[id_of(first)]["content"] == {} and "redacted_because" not in shown[id_of(first)]["unsigned"]
    assert id_of(redaction) in [id_of(event) for event in events_asked_about(policy)]
    assert id_of(redaction) not in shown


def test_much_of_history_is_asked_about_side_by_side(server, alice, policy):
    """Some of it, and never all at once."""
    copy = policy.create()
    said = [f"gap {number}" for number in range(MANY)]
    say(policy, copy, *said)
    use(policy, copy)
    sign, lock, together, under_way = policy.answers[SIGN], threading.Lock(), threading.Event(), []
    most = 0

    def answer(request):
        nonlocal most
        with lock:
            under_way.append(request)
            most = max(most, len(under_way))
            if most > 1:
                together.set()
        together.wait(SECONDS_MAX)
        try:
            return sign(request)
        finally:
            with lock:
                under_way.remove(request)

    policy.answers[SIGN] = answer
    alice.join(copy.room_id, query=via(policy))
    assert bodies(room_messages(alice, copy.room_id)) == said
    assert 1 < most <= AT_ONCE


# How a policy server gives no opinion of an event.
BUSY = 429, {"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 50}
# As common ones answer, too, when they fail themselves.
REFUSED = 400, {"errcode": "M_FORBIDDEN", "error": "This message is not allowed by the policy server"}
SILENT = {
    "it hangs": lambda released: lambda _: released.wait(SECONDS_MAX * 3) and (500, {}),
    "it fails": lambda _: lambda _: (500, {}),
    "it refuses whatever it is": lambda _: lambda _: REFUSED,
    "it is out": lambda _: lambda _: (502, {}),
    "it is busy": lambda _: lambda _: BUSY,
    "it is none": lambda _: lambda _: (404, {"errcode": "M_UNRECOGNIZED", "error": "no policy server"}),
    "it does not know the room": lambda _: lambda _: (404, {"errcode": "M_NOT_FOUND", "error": "unknown room"}),
    "its room shuts this server out": lambda _: lambda _: (403, {"errcode": "M_FORBIDDEN", "error": "not allowed"}),
    "it signs with another key": lambda _: lambda _: (200, {"policy.test": {"ed25519:policy_server": "A" * 86}}),
    "it does not know this server": lambda _: lambda _: (401, {"errcode": "M_UNAUTHORIZED", "error": "who are you"}),
}


@pytest.mark.parametrize("how", SILENT)
def test_what_it_has_not_answered_about_comes_when_it_does(warren, policy, released, how):
    """A reader waits no longer than for other servers, and is shown what is signed. It is started anew in between, and knows no more
    that it has asked."""
    copy = policy.create()
    say(policy, copy, "first", "spam", "second")
    use(policy, copy)
    say_signed(policy, copy, "signed")
    alice = Client(warren.base_url).register("alice")
    alice.join(copy.room_id, query=via(policy))
    sign, policy.answers[SIGN] = policy.answers[SIGN], SILENT[how](released)
    begun = time.monotonic()
    assert bodies(alice.messages(copy.room_id, limit=100)["chunk"]) == ["signed"]
    assert time.monotonic() - begun < SECONDS_MAX
    policy.answers[SIGN] = sign
    released.set()
    warren.restart()
    assert bodies(room_messages(alice, copy.room_id)) == ["first", "second", "signed"]


def test_a_policy_server_that_fails_is_not_asked_for_each_page(server, alice, policy):
    copy = policy.create()
    say(policy, copy, *[f"gap {number}" for number in range(MANY)])
    use(policy, copy)
    alice.join(copy.room_id, query=via(policy))
    policy.answers[SIGN] = lambda _: (500, {})
    for _ in range(3):
        assert bodies(room_messages(alice, copy.room_id)) == []
    assert 0 < len(policy.asked(SIGN)) <= AT_ONCE + PROBES


# What the policy server does with one event, though it signs others.
FAILURES = {
    "it fails": lambda _policy, _released: (500, {}),
    "it hangs": lambda _policy, released: released.wait(SECONDS_MAX * 3) and (500, {}),
    "something before it forbids it": lambda _policy, _released: (403, {}),
    "something before it says that it is out": lambda _policy, _released: (503, {}),
    "it is busy whenever it is asked": lambda _policy, _released: BUSY,
    "it signs wrongly": lambda policy, _released: (200, {policy.name: {POLICY_KEY: "A" * 86}}),
}


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def timed(network, tmp_path, clock):
    """A server for which the clock goes."""
    server = network.server(tmp_path)
    server.environment = clock.environment
    with sound(server):
        yield server


def fails_on(policy, is_bad, fail):
    """Lets the policy server fail on messages, as `fail` says."""
    sign = policy.answers[SIGN]

    def answer(request):
        return fail(request) if is_bad(json.loads(request.body)["content"].get("body")) else sign(request)

    policy.answers[SIGN] = answer


def until_told(clock, alice, room, expected):
    def is_all_told():
        clock.passes(PAUSE_SECONDS)
        return bodies(room_messages(alice, room)) == expected

    until(is_all_told, SECONDS_MAX * 9)


def test_one_that_signs_one_event_a_second_is_busy_and_refuses_none(timed, clock, policy):
    """As where something before it lets no more through; it is asked about all of a turn side by side."""
    copy = policy.create()
    texts = [f"old {number}" for number in range(AT_ONCE)]
    say(policy, copy, *texts)
    use(policy, copy)
    alice = Client(timed.base_url).register("alice")
    sign, lock, signed = policy.answers[SIGN], threading.Lock(), [0.0]

    def one_a_second(request):
        with lock:
            if time.monotonic() - signed[0] < 0.9:
                return 503, {}
            signed[0] = time.monotonic()
        return sign(request)

    policy.answers[SIGN] = one_a_second
    alice.join(copy.room_id, query=via(policy))
    until_told(clock, alice, copy.room_id, texts)


@pytest.mark.parametrize("others_are_signed", [True, False])
@pytest.mark.parametrize("how", FAILURES)
def test_an_event_that_it_fails_on_time_and_again_closes_nothing(
    timed, clock, policy, released, how, others_are_signed
):
    """Whoever finds one would else take all that was said before it from those who come later."""
    fails_on(policy, lambda body: body == "bad", lambda _: FAILURES[how](policy, released))
    alice, copy = Client(timed.base_url).register("alice"), policy.create()
    if others_are_signed:
        use(policy, copy)
        say_signed(policy, copy, "first")
        say(policy, copy, "bad")
        say_signed(policy, copy, "last")
    else:
        say(policy, copy, "first", "bad", "last")
        use(policy, copy)
    alice.join(copy.room_id, query=via(policy))
    assert "first" not in bodies(alice.messages(copy.room_id, limit=100)["chunk"])
    until_told(clock, alice, copy.room_id, ["first", "last"])
    released.set()


# What is said last of what is missing: nothing of a turn is signed.
ENDS = {
    "it fails on more than are asked about at a time": ["bad"] * (AT_ONCE + 1),
    "it refuses more than are asked about at a time": ["spam"] * (AT_ONCE + 1),
    "it fails on one and refuses what comes behind it": ["bad", *["spam"] * (AT_ONCE - 1)],
}


@pytest.mark.parametrize("has_signed", [True, False])
@pytest.mark.parametrize("end", ENDS)
def test_a_turn_in_which_it_signs_nothing_closes_nothing(timed, clock, policy, end, has_signed):
    """It is seen by what it has signed in the room that it is there, or by what it is to sign next."""
    fails_on(policy, lambda body: body == "bad", lambda _: (500, {}))
    alice, copy = Client(timed.base_url).register("alice"), policy.create()
    say(policy, copy, "first", *ENDS[end])
    use(policy, copy)
    signed = [say_signed(policy, copy, "signed")["content"]["body"]] if has_signed else []
    alice.join(copy.room_id, query=via(policy))
    until_told(clock, alice, copy.room_id, ["first", *signed])


# What says nothing of any event, if it says it of all.
OF_ALL = {
    "it refuses": REFUSED,
    "it is none": (404, {"errcode": "M_UNRECOGNIZED", "error": "no policy server"}),
    "it is out": (503, {}),
}


@pytest.mark.parametrize("how", OF_ALL)
def test_what_it_says_for_minutes_while_it_signs_nothing_counts_against_nothing(timed, clock, policy, how):
    copy = policy.create()
    first, *_ = say(policy, copy, "first", "second")
    use(policy, copy)
    say_signed(policy, copy, "signed")
    alice = Client(timed.base_url).register("alice")
    sign, policy.answers[SIGN] = policy.answers[SIGN], lambda _: OF_ALL[how]
    alice.join(copy.room_id, query=via(policy))
    times_asked = lambda: [id_of(event) for event in events_asked_about(policy)].count(id_of(first))

    def is_asked_often():
        clock.passes(PAUSE_SECONDS)
        assert bodies(room_messages(alice, copy.room_id)) == ["signed"]
        return times_asked() > 4

    until(is_asked_often, SECONDS_MAX * 9)
    policy.answers[SIGN] = sign
    until_told(clock, alice, copy.room_id, ["first", "second", "signed"])


def test_what_it_refuses_by_a_fault_of_its_own_comes_though_it_signs_what_it_knows(timed, clock, policy):
    """Common ones give the signature again of what they have signed, and refuse all else while they cannot judge."""
    copy = policy.create()
    say(policy, copy, "first", "second")
    use(policy, copy)
    known = id_of(say_signed(policy, copy, "signed"))
    alice = Client(timed.base_url).register("alice")
    sign = policy.answers[SIGN]
    policy.answers[SIGN] = lambda request: sign(request) if id_of(json.loads(request.body)) == known else REFUSED
    alice.join(copy.room_id, query=via(policy))
    was_asked = lambda: known in [id_of(event) for event in events_asked_about(policy)]
    assert bodies(room_messages(alice, copy.room_id)) == ["signed"]
    until(was_asked)
    clock.passes(2 * PAUSE_SECONDS)
    assert bodies(room_messages(alice, copy.room_id)) == ["signed"]
    policy.answers[SIGN] = sign
    until_told(clock, alice, copy.room_id, ["first", "second", "signed"])


def test_it_may_refuse_more_than_a_turn_before_it_signs_again(timed, clock, policy):
    """What was refused while nothing else was signed is asked about again."""
    copy = policy.create()
    said = [f"gap {number}" for number in range(REFUSED_MAX)]
    say(policy, copy, *said)
    use(policy, copy)
    known = id_of(say_signed(policy, copy, "signed"))
    alice = Client(timed.base_url).register("alice")
    sign, lock, refused = policy.answers[SIGN], threading.Lock(), []

    def answer(request):
        event_id = id_of(json.loads(request.body))
        with lock:
            if event_id == known or len(refused) >= REFUSED_MAX:
                return sign(request)
            refused.append(event_id)
            return REFUSED

    policy.answers[SIGN] = answer
    alice.join(copy.room_id, query=via(policy))
    until_told(clock, alice, copy.room_id, [*said, "signed"])
    assert len(refused) == REFUSED_MAX


def test_what_it_hangs_on_is_counted_side_by_side(timed, clock, policy, released):
    """One after the other, so many would close what is before them for long."""
    fails_on(policy, lambda body: body == "bad", lambda _: released.wait(SECONDS_MAX * 3) and (500, {}))
    alice, copy = Client(timed.base_url).register("alice"), policy.create()
    say(policy, copy, "first", *["bad"] * (AT_ONCE // 2), "last")
    use(policy, copy)
    say_signed(policy, copy, "signed")
    alice.join(copy.room_id, query=via(policy))
    until_told(clock, alice, copy.room_id, ["first", "last", "signed"])
    released.set()
