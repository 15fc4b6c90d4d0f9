"""A server that is in one room gets nothing of another, whatever ids it puts together.

The class of fault: an event served or processed outside of the room that the asking server was let into.
"""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.participant import path
from harness.peer import Key, signed
from harness.rooms import members, state_ids
from harness.senders import room_messages

SECRET = "where the carrots are"


@pytest.fixture
def closed(alice):
    """A private room, and an event in it."""
    closed = alice.create_room(preset="private_chat", room_version="11", name=SECRET)
    return closed, alice.send(closed, SECRET)


# {0}: the room that the server is in; {1}: an event of the other.
READS = [
    ("GET", "v1/state/{0}?event_id={1}", None),
    ("GET", "v1/state_ids/{0}?event_id={1}", None),
    ("GET", "v1/event/{1}", None),
    ("GET", "v1/event_auth/{0}/{1}", None),
    ("GET", "v1/backfill/{0}?limit=10&v={1}", None),
    ("POST", "v1/get_missing_events/{0}", {"earliest_events": [], "latest_events": [1], "limit": 20}),
]


@pytest.mark.parametrize("method, template, body", READS, ids=[row[1].split("/")[1] for row in READS])
def test_events_of_other_rooms_are_not_told(server, hostile, copy, closed, method, template, body):
    _, event_id = closed
    if body:
        body = {**body, "latest_events": [event_id]}
    status, answer = hostile.send(server, method, path(template, copy.room_id, event_id), body)
    assert status in (403, 404) or answer in ({"events": []},) or answer.get("pdus") == [], answer
    assert SECRET not in str(answer) and event_id not in str(answer)


def test_no_event_is_allowed_by_events_of_another_room(server, hostile, copy, alice, closed):
    """Nor does it follow them."""
    other, event_id = closed
    power = [event for event in alice.get("rooms/{roomId}/state", other) if event["type"] == "m.room.power_levels"]
    foreign = power[0]["event_id"]
    allowed = copy.allowing("m.room.message", hostile.user())
    told = [
        hostile.message(copy, "by another's", auth_events=[*allowed[:1], foreign, *allowed[2:]]),
        hostile.message(copy, "after another's", prev_events=[event_id]),
        hostile.message(copy, "after both", prev_events=[*copy.ends, event_id]),
    ]
    hostile.transact(server, told)
    last = hostile.place(copy, hostile.message(copy, "rightly"))
    assert hostile.transact(server, [last]) == {event: {} for event in copy.ends}
    assert bodies(room_messages(alice, copy.room_id)) == ["rightly"]
    assert bodies(room_messages(alice, other)) == [SECRET]


def test_a_redaction_does_not_reach_into_another_room(server, hostile, copy, alice, closed):
    other, event_id = closed
    redaction = hostile.next(copy, "m.room.redaction", {"redacts": event_id})
    hostile.transact(server, [redaction])
    assert alice.get("rooms/{roomId}/event/{eventId}", other, event_id)["content"]["body"] == SECRET


TIMES = ["v1/timestamp_to_event", "unstable/org.matrix.msc3030/timestamp_to_event"]


def at(hostile, server, prefix, room_id, ts, dir):
    return hostile.send(server, "GET", path(prefix + "/{}", room_id) + f"?ts={ts}&dir={dir}")


@pytest.mark.parametrize("prefix", TIMES)
def test_a_time_leads_to_no_event_of_another_room(server, hostile, copy, alice, closed, prefix):
    """However close that is to it."""
    other, event_id = closed
    ts = alice.get("rooms/{roomId}/event/{eventId}", other, event_id)["origin_server_ts"]
    # Everything in the room that it is in was before.
    assert at(hostile, server, prefix, copy.room_id, ts, "f")[0] == 404
    last = (200, {"event_id": copy.ends[0], "origin_server_ts": hostile.events[copy.ends[0]]["origin_server_ts"]})
    assert at(hostile, server, prefix, copy.room_id, ts, "b") == last
    for time, dir in ((ts, "f"), (ts, "b"), (0, "f")):
        status, answer = at(hostile, server, prefix, other, time, dir)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer


@pytest.mark.parametrize("prefix", TIMES)
def test_a_time_leads_to_nothing_for_a_server_that_is_not_in_the_room(server, hostile, honest, copy, alice, room, prefix):
    """One that has never been, and one that has left."""
    ts = alice.get("rooms/{roomId}/event/{eventId}", room, alice.send(room, "of then"))["origin_server_ts"]
    hostile.catch_up(server, copy)
    assert at(hostile, server, prefix, room, ts, "b")[0] == 200
    hostile.leave(server, copy)
    for peer in (hostile, honest):
        for time, dir in ((ts, "f"), (ts, "b"), (0, "f")):
            status, answer = at(peer, server, prefix, room, time, dir)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer


@pytest.mark.parametrize("method, template, body", READS, ids=[row[1].split("/")[1] for row in READS])
def test_a_server_that_has_left_is_told_what_was_and_nothing_since(server, hostile, copy, alice, room, method, template, body):
    """It may lack what made it leave, or what was before. The room shows everything to everybody who is in it."""
    before = alice.send(room, "of then")
    hostile.catch_up(server, copy)
    hostile.leave(server, copy)
    (end,) = copy.ends
    since = [alice.send(room, SECRET), alice.set_state(room, "m.room.topic", {"topic": SECRET})]

    def ask(event_id):
        more = {**body, "latest_events": [event_id]} if body else None
        return hostile.send(server, method, path(template, room, event_id), more)

    for event_id in (before, end):
        status, answer = ask(event_id)
        assert status == 200 and SECRET not in str(answer), answer
    for event_id in since:
        status, answer = ask(event_id)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN") and SECRET not in str(answer), answer


def two_rooms(server, hostile, alice, join_rule="public"):
    """The hostile server's copies of two rooms in which it is."""
    copies = [hostile.join(server, alice.create_room(preset="public_chat", room_version="11")) for _ in range(2)]
    for copy in copies:
        alice.set_state(copy.room_id, "m.room.join_rules", {"join_rule": join_rule})
        hostile.catch_up(server, copy)
    return copies


# Endpoint and what it hands in; the user is in the rooms already who leaves.
HANDED_IN = [
    ("v1/send_join", "join"), ("v2/send_join", "join"), ("v1/send_leave", "leave"), ("v2/send_leave", "leave"),
    ("v1/send_knock", "knock"),
]


@pytest.mark.parametrize("endpoint, membership", HANDED_IN, ids=[endpoint.replace("/", "-") for endpoint, _ in HANDED_IN])
def test_a_membership_is_handed_in_for_its_own_room_alone(server, hostile, alice, closed, endpoint, membership):
    """Be it for a room in which the server is as well."""
    first, second = two_rooms(server, hostile, alice, "knock" if membership == "knock" else "public")
    user = first.user if membership == "leave" else hostile.user("minion")
    event = hostile.event(first, "m.room.member", {"membership": membership}, sender=user, state_key=user)
    before = [state_ids(alice, room) for room in (first.room_id, second.room_id, closed[0])]
    for room in (second.room_id, closed[0], f"!nowhere:{server.name}"):
        status, answer = hostile.send(server, "PUT", path(endpoint + "/{}/{}", room, id_of(event)), event)
        assert status in (400, 403, 404) and SECRET not in str(answer), answer
        assert first.room_id not in str(answer) and room not in str(answer)
    # Nor as another event of its own room.
    other = hostile.message(first, "another")
    status, answer = hostile.send(server, "PUT", path(endpoint + "/{}/{}", first.room_id, id_of(other)), event)
    assert status == 400, answer
    assert [state_ids(alice, room) for room in (first.room_id, second.room_id, closed[0])] == before
    # With the right path it is taken in.
    status, answer = hostile.send(server, "PUT", path(endpoint + "/{}/{}", first.room_id, id_of(event)), event)
    assert status == 200, answer
    assert user in members(alice, first.room_id, membership)


def test_an_invite_by_an_address_is_exchanged_for_its_own_room_alone(server, hostile, alice):
    """The proof is right, and stands in the room that the event names: it is not the one in the path."""
    first, second = two_rooms(server, hostile, alice)
    key, target = Key("0"), hostile.user("dora")
    content = {"display_name": "d", "public_key": key.public, "key_validity_url": "https://identity.test/"}
    alice.set_state(first.room_id, "m.room.third_party_invite", content, key="token")
    invite = {"signed": signed({"mxid": target, "token": "token"}, "identity.test", key)}
    event = {"type": "m.room.member", "sender": alice.user_id, "state_key": target}
    event["content"] = {"membership": "invite", "third_party_invite": invite}
    before = [state_ids(alice, copy.room_id) for copy in (first, second)]
    for room, told in ((second, first), (first, second), (second, second)):
        exchanged = {**event, "room_id": told.room_id}
        status, _ = hostile.send(server, "PUT", path("v1/exchange_third_party_invite/{}", room.room_id), exchanged)
        assert status in (400, 403)
    assert [state_ids(alice, copy.room_id) for copy in (first, second)] == before
    assert not hostile.versions_asked("invite")
    exchanged = {**event, "room_id": first.room_id}
    assert hostile.send(server, "PUT", path("v1/exchange_third_party_invite/{}", first.room_id), exchanged)[0] == 200
    assert target in members(alice, first.room_id, "invite") and target not in members(alice, second.room_id, "invite")
