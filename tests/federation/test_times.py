"""What there was at a time, where history is missing (client-server API, `timestamp_to_event`): other servers are asked."""

import time

import pytest

from harness.client import bodies, timeline
from harness.events import id_of
from harness.participant import path
from harness.peer import now_ms
from harness.rooms import see
from harness.senders import room_messages

MINUTE = 60_000
# A user who asks waits for it.
SECONDS_MAX = 15
TELL = "/_matrix/federation/v1/timestamp_to_event/"


class Story:
    """A room in which a peer's user said a word each minute, of which this server was only sent the last."""

    def __init__(self, server, alice, resident, count=12):
        self.alice = alice
        self.room = alice.create_room(preset="public_chat")
        copy = resident.join(server, self.room)
        # What is missing is not told when the last comes.
        resident.answer_get_missing_events = lambda *_: (200, {"events": []})
        self.start, self.sent = now_ms() + MINUTE, []
        for number in range(count):
            word = resident.message(copy, str(number), origin_server_ts=self.start + number * MINUTE)
            self.sent.append(id_of(resident.place(copy, word)))
        assert resident.transact(server, [word]) == {self.sent[-1]: {}}
        # It is not asked for by a page of history, which would fill the gap.
        self.alice.sync_until(lambda answer: bodies(timeline(answer, self.room)) == [str(count - 1)])
        resident.requests.clear()

    def closest(self, ts, dir, **more):
        return self.alice.get("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", self.room, query={"ts": ts, "dir": dir}, **more)


@pytest.fixture
def story(server, alice, resident):
    return Story(server, alice, resident)


def asked(resident):
    return [request for request in resident.requests if request.target.startswith(TELL)]


@pytest.mark.parametrize("dir", ["f", "b"])
def test_what_only_another_server_has_is_found_and_history_read_from_there(story, resident, dir):
    ts = story.start + 5 * MINUTE
    found = story.closest(ts - 1 if dir == "f" else ts + 1, dir)
    assert found == {"event_id": story.sent[5], "origin_server_ts": ts}
    (request,) = asked(resident)
    assert request.headers["Authorization"].startswith("X-Matrix ")
    context = story.alice.get("rooms/{roomId}/context/{eventId}", story.room, story.sent[5], query={"limit": 6})
    assert bodies(context["events_before"]) == ["4", "3", "2"]
    assert bodies(context["events_after"]) == ["6", "7", "8"]
    before = story.alice.messages(story.room, **{"from": context["end"], "limit": 20})["chunk"]
    assert bodies(before)[:9] == [str(number) for number in range(8, -1, -1)]
    after = story.alice.messages(story.room, "f", **{"from": context["start"], "limit": 20})["chunk"]
    assert bodies(after) == [str(number) for number in range(2, 12)]
    # What is here by now is not asked for.
    assert story.closest(ts + MINUTE - 1, "f")["event_id"] == story.sent[6]
    assert len(asked(resident)) == 1


def test_nobody_is_asked_where_nothing_is_missing(story, resident):
    assert story.closest(story.start + 11 * MINUTE, "b")["event_id"] == story.sent[11]
    story.closest(story.start + 12 * MINUTE, "f", status=404, errcode="M_NOT_FOUND")
    assert story.closest(0, "f")["event_id"]
    story.closest(0, "b", status=404, errcode="M_NOT_FOUND")
    assert asked(resident) == []


def test_what_cannot_be_right_is_passed_over(story, resident):
    ts, far, last = story.start + 5 * MINUTE, story.sent[1], story.sent[11]
    for told in (
        # In the wrong direction; further away than what is here; not the event's own time; of an event that nobody has.
        {"event_id": far, "origin_server_ts": story.start + MINUTE},
        {"event_id": far, "origin_server_ts": story.start + 30 * MINUTE},
        {"event_id": far, "origin_server_ts": ts + 1},
        {"event_id": "$nothing", "origin_server_ts": ts + 1},
        {"event_id": far},
        {},
    ):
        resident.answer_timestamp_to_event = lambda *_, told=told: (200, told)
        assert story.closest(ts, "f")["event_id"] == last, told
    assert len(asked(resident)) == 6
    context = story.alice.get("rooms/{roomId}/context/{eventId}", story.room, far, status=404)
    assert context["errcode"] == "M_NOT_FOUND"


def test_a_server_that_does_not_answer_is_not_waited_for(story, resident):
    resident.trickle, begun = True, time.monotonic()
    assert story.closest(story.start + 5 * MINUTE, "f")["event_id"] == story.sent[11]
    assert time.monotonic() - begun < SECONDS_MAX


@pytest.mark.parametrize("wrong", [1000, now_ms() + 120 * MINUTE])
def test_an_event_of_a_wrong_time_misleads_nobody_who_asks_for_another(server, alice, resident, wrong):
    room, other = (alice.create_room(preset="public_chat") for _ in range(2))
    copy = resident.join(server, room)
    said = [alice.send(room, f"before {number}") for number in range(8)]
    for number in range(30):
        alice.send(other, f"elsewhere {number}")
    resident.catch_up(server, copy)
    odd = resident.place(copy, resident.message(copy, "odd", origin_server_ts=wrong))
    assert resident.transact(server, [odd]) == {id_of(odd): {}}
    see(alice, room, id_of(odd))
    said += [alice.send(room, f"behind {number}") for number in range(8)]
    times = {event["event_id"]: event["origin_server_ts"] for event in room_messages(alice, room)}
    for event_id in said:
        ts = times[event_id]
        for dir in ("f", "b"):
            query = {"ts": ts, "dir": dir}
            found = alice.get("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", room, query=query)
            told = resident.ask(server, "GET", path("v1/timestamp_to_event/{}?ts={}&dir={}", room, str(ts), dir))
            # Of several in one millisecond, whichever.
            assert found["origin_server_ts"] == told["origin_server_ts"] == ts
