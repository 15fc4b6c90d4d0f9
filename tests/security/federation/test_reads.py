"""A server that is in one room gets nothing of another, whatever ids it puts together.

The class of fault: an event served or processed outside of the room that the asking server was let into.
"""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.participant import path
from harness.rooms import joined_members
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


def test_a_join_is_handed_in_for_its_own_room_alone(server, hostile, copy, alice, closed):
    other, _ = closed
    user = hostile.user("minion")
    event = hostile.event(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
    for version in ("v1", "v2"):
        target = path(version + "/send_join/{}/{}", other, id_of(event))
        status, answer = hostile.send(server, "PUT", target, event)
        assert status in (400, 403, 404) and SECRET not in str(answer), answer
    for room_id in (other, copy.room_id):
        assert user not in joined_members(alice, room_id)
