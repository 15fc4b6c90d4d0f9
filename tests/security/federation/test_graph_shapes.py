"""Graphs of events that are made to cost: what a server asks for is bounded, and so is what it makes this one do.

The class of fault: CPU or disk by the shape of the graph. `room/receive/tests/hostile.rs`, `room/fork/tests.rs` and
`core/resolve/tests/hostile.rs` of the engine have the shapes one by one; here they come over the network.
"""

import time

from harness.client import bodies
from harness.events import Copy, id_of
from harness.participant import path
from harness.rooms import see
from harness.senders import room_messages
from harness.waiting import until

WIDTH = 1_000
# Far more than the work takes on a slow machine, and far less than it would take without limits.
SECONDS_MAX = 30


def portions(events, size=50):
    return [events[at : at + size] for at in range(0, len(events), size)]


def chain(hostile, copy, length):
    return [hostile.place(copy, hostile.message(copy, f"{number}")) for number in range(length)]


def test_nobody_is_given_more_events_than_the_limits_say(server, hostile, copy):
    first, *_, last = [id_of(event) for event in chain(hostile, copy, 150)]
    for pdus in portions([hostile.events[event_id] for event_id in list(hostile.events)[-150:]]):
        hostile.transact(server, pdus)
    body = {"earliest_events": [], "latest_events": [last], "limit": 1_000_000}
    status, answer = hostile.send(server, "POST", path("v1/get_missing_events/{}", copy.room_id), body)
    assert status == 200 and 0 < len(answer["events"]) <= 20
    status, answer = hostile.send(server, "GET", path("v1/backfill/{}?limit=1000000&v={}", copy.room_id, last))
    assert status == 200 and 0 < len(answer["pdus"]) <= 100
    many = "&".join(f"v=${number:043}" for number in range(200))
    target = path("v1/backfill/{}?limit=100&", copy.room_id) + many
    status, answer = hostile.send(server, "GET", target)
    assert status in (200, 400, 403, 404) and len(answer.get("pdus", [])) <= 100
    for name in ("earliest_events", "latest_events"):
        body = {"earliest_events": [], "latest_events": [last], "limit": 10, name: [last] * 1_500}
        status, answer = hostile.send(server, "POST", path("v1/get_missing_events/{}", copy.room_id), body)
        assert status in (200, 400, 413) and len(answer.get("events", [])) <= 10, name


def test_a_thousand_ends_cost_a_bounded_work(server, hostile, copy, alice, room):
    begin = time.monotonic()
    fan = [hostile.message(copy, f"{number}") for number in range(WIDTH)]
    for pdus in portions(fan):
        hostile.transact(server, pdus)
    # They are brought together as they come, by events that go on from them.
    depth = lambda: hostile.send(server, "GET", path("v1/make_leave/{}/{}", room, hostile.user()))[1]["event"]["depth"]
    until(lambda: depth() > copy.depth + 2, SECONDS_MAX)
    own = alice.send(room, "one")
    hostile.until(lambda: any(id_of(event) == own for event in hostile.pdus))
    assert len(hostile.events[own]["prev_events"]) <= 10
    # State that forks with each of the ends, and what follows as many as it may name.
    tips = [Copy(room, copy.state, [id_of(event)], event["depth"]) for event in fan[:100]]
    states = [
        hostile.event(tip, "m.room.member", {"membership": "join", "displayname": f"{at}"}, state_key=hostile.user())
        for at, tip in enumerate(tips)
    ]
    for pdus in portions(states):
        hostile.transact(server, pdus)
    wide = hostile.message(copy, "wide", prev_events=[id_of(event) for event in states[:20]], depth=copy.depth + 3)
    hostile.transact(server, [wide])
    see(alice, room, alice.send(room, "two"))
    assert time.monotonic() - begin < SECONDS_MAX
    assert bodies(room_messages(alice, room))[-1] == "two"


def test_a_graph_without_end_is_not_followed(server, hostile, copy, alice, room):
    """Each event that is asked for follows another one that is not there, for ever."""
    begin, asked = time.monotonic(), []

    def endless(_values, _query, body):
        asked.append(body)
        events, latest = [], body["latest_events"][0]
        for _ in range(body["limit"]):
            made = hostile.message(copy, "endless", prev_events=[f"${len(hostile.events):043}"])
            hostile.events[latest] = made
            events.append(made)
            latest = made["prev_events"][0]
        return 200, {"events": events}

    hostile.answer_get_missing_events = endless
    hostile.answer_state_ids = lambda *_: (404, {"errcode": "M_NOT_FOUND", "error": "no"})
    hostile.answer_state = hostile.answer_state_ids
    hostile.transact(server, [hostile.message(copy, "start", prev_events=["$" + "A" * 43])])
    # What comes beside it is taken in meanwhile, and the questions end.
    good = hostile.place(copy, hostile.message(copy, "good"))
    hostile.transact(server, [good])
    see(alice, room, id_of(good))
    last = hostile.place(copy, hostile.message(copy, "and on"))
    hostile.transact(server, [last])
    see(alice, room, id_of(last))
    assert bodies(room_messages(alice, room)) == ["good", "and on"]
    assert len(asked) <= 60 and time.monotonic() - begin < SECONDS_MAX


def test_a_long_chain_that_allows_events_is_walked_once(server, hostile, copy, alice, room):
    """A thousand changes of a name, each allowed by the one before, and what then asks for all that allows it."""
    begin = time.monotonic()
    for number in range(WIDTH):
        content = {"membership": "join", "displayname": f"{number}"}
        hostile.next(copy, "m.room.member", content, state_key=hostile.user())
    renamed = [event for event in hostile.events.values() if "displayname" in event["content"]]
    for pdus in portions([event for event in renamed if event["sender"] == hostile.user()]):
        hostile.transact(server, pdus)
    last = hostile.next(copy, "m.room.message", {"body": "last"})
    hostile.transact(server, [last])
    for _ in range(5):
        status, answer = hostile.send(server, "GET", path("v1/event_auth/{}/{}", room, id_of(last)))
        assert status == 200 and len(answer["auth_chain"]) >= WIDTH
    see(alice, room, alice.send(room, "own"))
    assert time.monotonic() - begin < SECONDS_MAX
