"""History in which the room's graph forks, as a client reads it: no event comes before one that it follows, wherever the
pages end that other servers give, and whatever one of them lacks (server-server API, `GET /backfill/{roomId}`)."""

import heapq
import time

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.participant import Participant
from harness.rooms import see, via

PAGE = 100

# A server that takes longer is asked after all others, and what it has comes late. A loaded machine may be as slow.
ANSWER_SECONDS_MAX = 4
TRIES = 5


def deepest_first(peer, lacking=()):
    """Lets a server give the deepest of what it has, as other implementations do."""

    def depth_of(event_id):
        return -peer.events[event_id]["depth"], event_id

    def has(event_id):
        return event_id in peer.events and event_id not in lacking

    def answer(_values, query, _body):
        found, seen = [], set(filter(has, query["v"]))
        left = [depth_of(event_id) for event_id in seen]
        heapq.heapify(left)
        while left and len(found) < min(PAGE, int(query["limit"])):
            event = peer.events[heapq.heappop(left)[1]]
            found.append(event)
            for event_id in filter(has, event["prev_events"]):
                if event_id not in seen:
                    seen.add(event_id)
                    heapq.heappush(left, depth_of(event_id))
        return peer.enveloped(found)

    peer.answer_backfill = answer


def say(resident, copy, *texts):
    for text in texts:
        resident.place(copy, resident.message(copy, text))


def numbered(word, count):
    return [f"{word} {number}" for number in range(count)]


def read_timed(client, room):
    """The whole room, oldest first, and how long the slowest page took: no server was asked for longer."""
    events, seconds, query = [], 0, {"limit": 20}
    while True:
        begun = time.monotonic()
        page = client.messages(room, **query)
        seconds = max(seconds, time.monotonic() - begun)
        events += page["chunk"]
        if "end" not in page:
            return events[::-1], seconds
        query["from"] = page["end"]


def read_all(client, room):
    """The whole room, oldest first."""
    return read_timed(client, room)[0]


def forge(peer, event_ids):
    """Lets a server give copies of events that are wrongly signed."""
    for event_id in event_ids:
        event = peer.events[event_id]
        forged = {name: dict.fromkeys(keys, "A" * 86) for name, keys in event["signatures"].items()}
        peer.events[event_id] = {**event, "signatures": forged}


def too_early(resident, events):
    """The texts before one that they follow."""
    place = {event["event_id"]: at for at, event in enumerate(events)}
    found = []
    for event_id, at in place.items():
        prev = resident.events[event_id]["prev_events"] if event_id in resident.events else []
        if any(place.get(before, at) > at for before in prev):
            found.append(resident.events[event_id]["content"].get("body", event_id))
    return found


def test_a_page_that_ends_with_one_of_several_branches(server, alice, resident):
    """Its state is asked for, and then that before what follows it and a branch that is on the next page."""
    copy = resident.create()
    deepest_first(resident)
    say(resident, copy, *numbered("before", 30))
    base, depth = list(copy.ends), copy.depth
    one = resident.message(copy, "one", prev_events=base, depth=depth + 2)
    two, three = (resident.message(copy, text, prev_events=base, depth=depth + 1) for text in ("two", "three"))
    copy.ends, copy.depth = [id_of(one), id_of(two)], depth + 2
    say(resident, copy, "merged", *numbered("between", 20))
    copy.ends = [*copy.ends, id_of(three)]
    say(resident, copy, "merged again", *numbered("after", PAGE - 23))
    alice.join(copy.room_id, query=via(resident))
    events = read_all(alice, copy.room_id)
    assert too_early(resident, events) == []
    assert len(bodies(events)) == 30 + 3 + 1 + 20 + 1 + PAGE - 23


class Lacking:
    """A room of which the resident lacks a run of another server's events, and tells what is before and behind it."""

    def __init__(self, resident, other, count, old):
        self.resident, self.other = resident, other
        copy = self.copy = resident.create()
        # It has most of the members, so that it is asked first.
        for peer, word in ((resident, "a"), (resident, "b"), (other, "c")):
            user = peer.user(word)
            join = peer.event(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
            resident.take(copy, join)
        say(resident, copy, *numbered("old", old))
        prev, depth = list(copy.ends), copy.depth
        say(resident, copy, *numbered("here", 5))
        self.lacking = set()
        for number, text in enumerate(numbered("there", count)):
            user = other.user("c")
            more = {"sender": user, "prev_events": prev, "depth": depth + 1 + number}
            if number == count - 2:
                # It is known as part of the state.
                content = {"membership": "join", "displayname": text}
                event = other.event(copy, "m.room.member", content, state_key=user, **more)
                copy.state["m.room.member", user] = id_of(event)
            else:
                event = other.message(copy, text, **more)
            prev = [id_of(event)]
            resident.know(event)
            self.lacking.add(id_of(event))
        # The last it was sent.
        self.lacking.discard(id_of(event))
        resident.before[id_of(event)] = dict(copy.state)
        copy.ends, copy.depth = [*copy.ends, id_of(event)], event["depth"]
        say(resident, copy, *numbered("behind", 5))
        other.know(*resident.events.values())
        other.before.update(resident.before)
        deepest_first(resident, self.lacking)


@pytest.fixture
def read(network, alice):
    """Reads a room of which a server lacks so many events, and of which another one tells what `tell` makes it tell.
    Answers with the room and its events, as they are read while both answer soon: the first time they may not."""
    peers = []

    def read(count, tell, old=20):
        for _ in range(TRIES):
            peers.extend(pair := [network.peer(kind=Participant) for _ in range(2)])
            room = Lacking(*pair, count, old)
            tell(room)
            alice.join(room.copy.room_id, query=via(room.resident))
            events, seconds = read_timed(alice, room.copy.room_id)
            if seconds < ANSWER_SECONDS_MAX:
                break
        return room, events

    yield read
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("count", [30, PAGE + 50])
def test_what_a_server_lacks_is_not_put_before_what_is_older(server, read, count):
    """In one page, or more than that."""
    room, events = read(count, lambda room: deepest_first(room.other))
    assert too_early(room.resident, events) == []
    said = [*numbered("old", 20), *numbered("here", 5), *numbered("there", count), *numbered("behind", 5)]
    said.remove(f"there {count - 2}")
    assert sorted(bodies(events)) == sorted(said)


def test_what_nobody_has_keeps_nothing_back(server, read):
    room, events = read(30, lambda room: deepest_first(room.other, room.lacking))
    assert too_early(room.resident, events) == []
    said = [*numbered("old", 20), *numbered("here", 5), "there 29", *numbered("behind", 5)]
    assert sorted(bodies(events)) == sorted(said)
    assert room.other.versions_asked("backfill")


def test_what_another_server_tells_in_vain_is_not_asked_for_with_each_page(server, read):
    """However long the room is: what it has is wrongly signed."""

    def tell(room):
        deepest_first(room.other)
        forge(room.other, room.lacking)

    def times_asked(old):
        room, events = read(30, tell, old)
        said = [*numbered("old", old), *numbered("here", 5), "there 29", *numbered("behind", 5)]
        assert sorted(bodies(events)) == sorted(said)
        return len(room.other.versions_asked("backfill"))

    assert times_asked(4 * PAGE) == times_asked(20)


def test_a_bad_copy_of_one_server_keeps_nothing_back_that_another_has(server, network, read):
    """The one has more members, so that it is asked before the other."""
    thirds = []

    def tell(room):
        thirds.append(third := network.peer(kind=Participant))
        for peer, word in ((room.other, "d"), (third, "e")):
            user = peer.user(word)
            join = peer.event(room.copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
            room.resident.take(room.copy, join)
        third.know(*room.resident.events.values())
        third.before.update(room.resident.before)
        deepest_first(third)
        deepest_first(room.other)
        forge(room.other, room.lacking)

    room, events = read(30, tell)
    assert room.other.versions_asked("backfill")
    assert too_early(room.resident, events) == []
    said = [*numbered("old", 20), *numbered("here", 5), *numbered("there", 30), *numbered("behind", 5)]
    said.remove("there 28")
    assert sorted(bodies(events)) == sorted(said)
    for third in thirds:
        third.close()


def test_what_leads_to_before_an_earlier_stay_comes_before_that(server, alice, resident):
    """A late event follows one from before the first join; a page of the stay is between them."""
    copy = resident.create()
    deepest_first(resident)
    say(resident, copy, *numbered("old", 6))
    base = copy.ends[0], copy.depth
    say(resident, copy, *numbered("older", 24))
    alice.join(copy.room_id, query=via(resident))
    for number in range(3):
        said = [resident.place(copy, resident.message(copy, f"stay {number} {at}")) for at in range(40)]
        assert all(answer == {} for answer in resident.transact(server, said).values())
    see(alice, copy.room_id, id_of(said[-1]))
    alice.leave(copy.room_id)
    leaves = lambda: [event for event in resident.pdus if event["content"].get("membership") == "leave"]
    resident.until(leaves)
    resident.take(copy, leaves()[0])
    say(resident, copy, *numbered("away", 10))
    late = resident.message(copy, "late", prev_events=[base[0]], depth=base[1] + 1)
    copy.ends = [*copy.ends, id_of(late)]
    say(resident, copy, "merged")
    alice.join(copy.room_id, query=via(resident))
    events = read_all(alice, copy.room_id)
    assert too_early(resident, events) == []
    assert events[0]["type"] == "m.room.create"
    assert len(bodies(events)) == 30 + 120 + 10 + 2
