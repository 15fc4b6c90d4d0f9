"""What was said before an event that clients are not shown is history like any other: nothing else need lead to it (server-server API,
"Soft failure" and "Rejection").
"""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.rooms import see
from harness.senders import room_messages
from harness.waiting import until

ORDERS = {"first": [0, 1], "afterwards": [1, 0]}


def say(resident, copy, body, **more):
    return resident.place(copy, resident.message(copy, body, **more))


@pytest.fixture
def copy(alice, server, resident):
    """The resident's copy of a room of Alice's that both are in, and a user of the resident's there who is unwelcome."""
    copy = resident.join(server, alice.create_room(preset="public_chat"))
    copy.mole = resident.user("mole")
    join = resident.next(copy, "m.room.member", {"membership": "join"}, sender=copy.mole, state_key=copy.mole)
    resident.transact(server, [join])
    see(alice, copy.room_id, id_of(join))
    # What is missing is told by who is asked for history alone.
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    return copy


def told(server, alice, resident, copy, events):
    """Sends the events one by one, and waits until all of the room is shown."""
    for event in events:
        resident.transact(server, [event])
        # Acknowledged is not yet judged.
        until(lambda event=event: resident.versions_asked("state_ids") or is_shown(alice, copy, event))
    return until(lambda: {"innocent", "after"} <= set(bodies(room_messages(alice, copy.room_id))))


def is_shown(alice, copy, event):
    return event["content"].get("body") in bodies(room_messages(alice, copy.room_id))


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_what_was_said_before_a_message_of_somebody_banned(server, alice, resident, copy, order):
    # The resident has not heard of that yet.
    alice.post("rooms/{roomId}/ban", copy.room_id, json={"user_id": copy.mole})
    say(resident, copy, "innocent")
    events = [say(resident, copy, "hidden", sender=copy.mole), say(resident, copy, "after")]
    assert told(server, alice, resident, copy, [events[at] for at in order])


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_what_was_said_before_something_that_is_not_allowed(server, alice, resident, copy, order):
    say(resident, copy, "innocent")
    state = dict(copy.state)
    name = resident.next(copy, "m.room.name", {"name": "the mole's"}, sender=copy.mole, state_key="")
    copy.state = state
    events = [name, say(resident, copy, "after")]
    assert told(server, alice, resident, copy, [events[at] for at in order])
