"""A server that could not be reached for more than an hour is told where each room ends, not all that it missed, which it fetches
from there; one that was away for less is told everything (server-server API, "Transactions")."""

import pytest

from harness.clock import HOUR, Clock
from harness.deliveries import room_with, until_failing
from harness.events import id_of
from harness.participant import path
from harness.server import sound

# More than one transaction has.
MISSED = 60


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def warren(network, tmp_path, clock):
    """A server of the test's own, with an administrator, whose time a test sets forward."""
    clock.ahead(0)
    server = network.server(tmp_path)
    server.admin_password = server.make_administrator("warden")
    server.environment = clock.environment
    with sound(server):
        yield server


def misses(alice, admin, resident, first, second):
    """The peer is down while there is talk in two of its rooms, and at last a topic in the first. Answers the topic's id."""
    resident.is_failing = True
    alice.send(first, "it was tried with this")
    until_failing(admin, resident)
    for number in range(MISSED):
        alice.send(first, f"first {number}")
        alice.send(second, f"second {number}")
    alice.put("rooms/{roomId}/typing/{userId}", first, alice.user_id, json={"typing": True, "timeout": 30_000})
    return alice.set_state(first, "m.room.topic", {"topic": "meanwhile"})


def comes_back(warren, clock, alice, resident, room, end, seconds):
    """The peer is there again after so long, and is heard from. It is told of what it missed, and of what is said then."""
    clock.ahead(seconds)
    resident.transactions.clear()
    resident.is_failing = False
    resident.ask(warren, "GET", path("v1/query/profile?user_id={}", alice.user_id))
    resident.until(lambda: end in map(id_of, resident.pdus))
    alice.send(room, "the last")
    resident.until(lambda: "the last" in resident.bodies)


def test_who_was_away_for_hours_is_told_where_rooms_end(warren, clock, alice, admin, resident):
    first, second = [room_with(alice, warren, resident)[0] for _ in range(2)]
    resident.tries.clear()
    topic = misses(alice, admin, resident, first, second)
    comes_back(warren, clock, alice, resident, first, topic, 2 * HOUR)
    # What it was tried with comes as it was, under the same id; then the rooms in the order of their ends.
    (begun, *_), (tried, *_) = resident.transactions, resident.tries
    assert (begun[0], begun[1]["pdus"]) == (tried[0], tried[1]["pdus"])
    last = f"second {MISSED - 1}"
    assert resident.bodies == ["it was tried with this", last, "the last"]
    assert [id_of(event) for event in resident.pdus if event["type"] == "m.room.topic"] == [topic]
    assert not any(typing["typing"] for typing in resident.edus("m.typing")), "that was hours ago"
    # From there it is given what it missed.
    (end,) = [id_of(event) for event in resident.pdus if event["content"].get("body") == last]
    target = path("v1/backfill/{}?limit={}&v={}", second, str(MISSED), end)
    given = resident.ask(warren, "GET", target)["pdus"]
    assert {event["content"].get("body") for event in given} == {f"second {number}" for number in range(MISSED)}


def test_who_was_away_for_less_than_an_hour_is_told_everything(warren, clock, alice, admin, resident):
    first, second = [room_with(alice, warren, resident)[0] for _ in range(2)]
    topic = misses(alice, admin, resident, first, second)
    comes_back(warren, clock, alice, resident, first, topic, HOUR // 2)
    missed = [f"{room} {number}" for number in range(MISSED) for room in ("first", "second")]
    assert resident.bodies == ["it was tried with this", *missed, "the last"]
