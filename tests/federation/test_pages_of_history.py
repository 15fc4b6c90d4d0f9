"""History that this server lacks, as a client reads it: all of it comes, in order, whichever way it is read and whoever of
those who have it is silent; and it is no news (client-server API, `GET /rooms/{roomId}/messages`)."""

import threading
import time

import pytest

from harness.client import Client, bodies, joined, timeline
from harness.events import id_of
from harness.participant import Participant
from harness.rooms import see, via
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

# As long as a client waits, and then some.
SECONDS_MAX = 20

FILES = '{"contains_url":true}'


@pytest.fixture
def released():
    """Until it is set, a server does not answer."""
    event = threading.Event()
    yield event
    event.set()


def say(resident, copy, body):
    return resident.place(copy, resident.message(copy, body))


def say_many(resident, copy, count):
    for number in range(count):
        say(resident, copy, f"gap {number}")


def say_files(resident, copy):
    """Two of them, more than what another server gives at a time apart."""
    for number in range(350):
        if number in (20, 190):
            content = {"msgtype": "m.file", "body": f"file {number}", "url": "mxc://elsewhere.test/file"}
            resident.next(copy, "m.room.message", content)
        else:
            say(resident, copy, f"gap {number}")


def ignore(client, user):
    ignored = {"ignored_users": {user: {}}}
    client.put("user/{userId}/account_data/{type}", client.user_id, "m.ignored_user_list", json=ignored)


def numbered(numbers):
    return [f"gap {number}" for number in numbers]


def joined_by_resident(server, alice, resident):
    """What the resident has of a room of ours, of which it tells only the last event when that comes."""
    copy = resident.join(server, alice.create_room(preset="public_chat", room_version="11"))
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    return copy


def tell(server, alice, resident, copy, body):
    """Says something that comes here, whatever was said before."""
    last = say(resident, copy, body)
    assert resident.transact(server, [last]) == {id_of(last): {}}
    return see(alice, copy.room_id, id_of(last))["event_id"]


def read_all(client, room, direction="b", **query):
    """All pages, one after the other."""
    events, pages = [], 0
    while True:
        page = client.messages(room, direction, **query)
        events += page["chunk"]
        pages += 1
        assert pages < 100
        if "end" not in page:
            return events
        query["from"] = page["end"]


@pytest.mark.parametrize("is_before_join", [True, False])
def test_what_a_filter_lets_through_is_found_however_rare_it_is(server, alice, resident, is_before_join):
    """Rarer than once in what another server gives at a time."""
    copy = resident.create() if is_before_join else joined_by_resident(server, alice, resident)
    say_files(resident, copy)
    if is_before_join:
        alice.join(copy.room_id, query=via(resident))
    else:
        tell(server, alice, resident, copy, "last")
    found = read_all(alice, copy.room_id, limit=30, filter=FILES)
    assert bodies(found) == ["file 190", "file 20"]


@pytest.mark.parametrize("is_ignored", [True, False])
def test_what_a_client_may_not_see_is_not_the_end_of_what_it_may(server, alice, resident, is_ignored):
    """More than another server gives at a time: all by somebody whom the user ignores, or while only who was there may know."""
    copy, other = resident.create(), resident.user("other")
    say_many(resident, copy, 30)
    resident.next(copy, "m.room.member", {"membership": "join"}, state_key=other, sender=other)
    if is_ignored:
        ignore(alice, other)
    else:
        resident.next(copy, "m.room.history_visibility", {"history_visibility": "joined"}, state_key="")
    for number in range(350):
        resident.place(copy, resident.message(copy, f"hidden {number}", sender=other))
    resident.next(copy, "m.room.history_visibility", {"history_visibility": "shared"}, state_key="")
    alice.join(copy.room_id, query=via(resident))
    assert bodies(read_all(alice, copy.room_id, limit=20)) == numbered(reversed(range(30)))


def gap_of_sync(server, alice, resident, copy):
    """Lets somebody say something else, behind what does not come with it. Where the client was before, and where its gap ends."""
    old, last = alice.since, say(resident, copy, "last")
    assert resident.transact(server, [last]) == {id_of(last): {}}
    answer = alice.sync_until(lambda answer: timeline(answer, copy.room_id) and answer)
    told = joined(answer, copy.room_id)["timeline"]
    assert told["limited"] and bodies(told["events"]) == ["last"]
    return old, told["prev_batch"]


@pytest.mark.parametrize("is_filtered", [True, False])
def test_a_client_fills_the_gap_of_its_sync(server, alice, resident, is_filtered):
    """Back to where it was before; with a filter that lets nothing of the first page through, too."""
    copy = joined_by_resident(server, alice, resident)
    tell(server, alice, resident, copy, "first")
    say_files(resident, copy)
    old, prev_batch = gap_of_sync(server, alice, resident, copy)
    query = {"from": prev_batch, "to": old, "limit": 20} | ({"filter": FILES} if is_filtered else {})
    found = bodies(read_all(alice, copy.room_id, **query))
    assert [body for body in found if body.startswith("file")] == ["file 190", "file 20"]
    assert len(found) == (2 if is_filtered else 350)


@pytest.mark.parametrize("direction", ["b", "f"])
def test_who_fills_the_gap_of_a_sync_is_told_to_come_again_for_what_has_not_come(
    server, alice, resident, released, direction
):
    """A server takes longer than a client waits."""
    copy = joined_by_resident(server, alice, resident)
    tell(server, alice, resident, copy, "first")
    say_many(resident, copy, 50)
    real = resident.answer_backfill
    resident.answer_backfill = lambda *question: released.wait() and real(*question)
    old, prev_batch = gap_of_sync(server, alice, resident, copy)
    start, to = (prev_batch, old) if direction == "b" else (old, prev_batch)
    waiting = alice.messages(copy.room_id, direction, limit=20, to=to, **{"from": start})
    assert waiting["chunk"] == [] and waiting["end"] != waiting["start"]
    released.set()
    found = read_all(alice, copy.room_id, direction, limit=20, to=to, **{"from": waiting["end"]})
    assert bodies(found) == numbered(reversed(range(50)) if direction == "b" else range(50))


def test_a_large_page_over_a_large_gap_leaves_nothing_out(server, alice, resident):
    copy = joined_by_resident(server, alice, resident)
    first = tell(server, alice, resident, copy, "first")
    say_many(resident, copy, 1_200)
    tell(server, alice, resident, copy, "last")
    found = read_all(alice, copy.room_id, limit=1_000)
    assert bodies(found) == ["last", *numbered(reversed(range(1_200))), "first"]
    assert first in [event["event_id"] for event in found]


def test_what_comes_behind_an_event_is_what_was_said_next(server, alice, resident):
    """Though a gap is filled from its other end."""
    copy = joined_by_resident(server, alice, resident)
    first = tell(server, alice, resident, copy, "first")
    say_many(resident, copy, 250)
    tell(server, alice, resident, copy, "last")
    context = alice.get("rooms/{roomId}/context/{eventId}", copy.room_id, first, query={"limit": 10})
    assert bodies(context["events_after"]) == numbered(range(5))
    found = read_all(alice, copy.room_id, "f", **{"from": context["end"], "limit": 100})
    assert bodies(found) == [*numbered(range(5, 250)), "last"]


def test_a_gap_that_nobody_can_fill_is_passed_over(server, alice, resident):
    copy = joined_by_resident(server, alice, resident)
    tell(server, alice, resident, copy, "first")
    say_many(resident, copy, 3)
    resident.answer_backfill = lambda *_: resident.enveloped([])
    tell(server, alice, resident, copy, "last")
    assert bodies(room_messages(alice, copy.room_id)) == ["first", "last"]


def test_a_silent_server_keeps_nothing_back_that_another_has(server, alice, resident, network, released):
    """It has most of the members, so that it would be asked first. It is so once."""
    silent = network.peer(kind=Participant)
    copy = resident.create()
    say_many(resident, copy, 150)
    for word in ("a", "b", "c"):
        user = silent.user(word)
        join = silent.event(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
        resident.take(copy, join)
    alice.join(copy.room_id, query=via(resident))
    real = silent.answer_backfill
    silent.answer_backfill = lambda *question: released.wait() and real(*question)
    begun = time.monotonic()
    first = alice.messages(copy.room_id, limit=100)
    assert time.monotonic() - begun < SECONDS_MAX and "gap 149" in bodies(first["chunk"])
    assert bodies(read_all(alice, copy.room_id, limit=1_000)) == numbered(reversed(range(150)))
    assert silent.versions_asked("backfill") == ["v1"]
    released.set()
    silent.close()


def test_what_a_slow_server_gives_is_there_when_it_has_come(server, alice, resident, released):
    """It takes longer than a client waits."""
    copy = resident.create()
    say_many(resident, copy, 20)
    alice.join(copy.room_id, query=via(resident))
    real = resident.answer_backfill
    resident.answer_backfill = lambda *question: released.wait() and real(*question)
    begun = time.monotonic()
    page = alice.messages(copy.room_id, limit=100)
    assert time.monotonic() - begun < SECONDS_MAX
    assert bodies(page["chunk"]) == [] and "end" in page
    # Also who reads on from there is told to come again.
    at_end = {"from": page["end"], "limit": 100}
    waiting = alice.messages(copy.room_id, **at_end)
    assert waiting["chunk"] == [] and waiting["end"] != waiting["start"]
    released.set()
    found = until(lambda: alice.messages(copy.room_id, **{**at_end, "from": waiting["end"]})["chunk"])
    assert bodies(found) == numbered(reversed(range(20)))


def test_history_that_is_read_is_not_unread(server, alice, resident):
    copy = joined_by_resident(server, alice, resident)
    first = tell(server, alice, resident, copy, "first")
    alice.post("rooms/{roomId}/receipt/{receiptType}/{eventId}", copy.room_id, "m.read", first)
    say_many(resident, copy, 30)
    tell(server, alice, resident, copy, "last")

    def unread():
        return joined(alice.get("sync"), copy.room_id)["unread_notifications"]["notification_count"]

    assert unread() == 1
    assert len(bodies(room_messages(alice, copy.room_id))) == 32
    assert unread() == 1
    # With others to ignore, it is counted anew.
    ignore(alice, resident.user("nobody"))
    assert unread() == 1


def test_who_came_while_nobody_was_here_leaves_a_sound_database(network, tmp_path, resident):
    with sound(network.server(tmp_path)) as server:
        alice = Client(server.base_url).register("alice")
        copy = resident.create()
        alice.join(copy.room_id, query=via(resident))
        alice.leave(copy.room_id)
        is_leave = lambda event: event.get("state_key") == alice.user_id and event["content"]["membership"] == "leave"
        resident.until(lambda: any(is_leave(event) for event in resident.pdus))
        resident.take(copy, next(event for event in resident.pdus if is_leave(event)))
        newcomer = resident.user("newcomer")
        resident.next(copy, "m.room.member", {"membership": "join"}, state_key=newcomer, sender=newcomer)
        say(resident, copy, "missed")
        alice.join(copy.room_id, query=via(resident))
        assert bodies(room_messages(alice, copy.room_id)) == ["missed"]
