"""Of a room's history only those events are missing that cannot be checked: by users of a server that is gone, whose keys nobody
has, or wrongly signed. What is before them is read as all else (server-server API, "Checks performed on receipt of a PDU")."""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.participant import Participant
from harness.rooms import see, via
from harness.senders import room_messages

# Fewer events than the server asks for, as of a server that gives little at once.
PAGE = 5
# Messages before those that are bad, and behind them.
BEFORE, BEHIND = 8, 8


@pytest.fixture
def gone(network):
    """A server that nobody ever had the keys of."""
    peer = network.peer(kind=Participant)
    peer.close()
    return peer


def by_who_is_gone(gone, _resident, copy, body):
    return gone.message(copy, body, sender=gone.user())


def wrongly_signed(_gone, resident, copy, body):
    event = resident.message(copy, body)
    return {**event, "signatures": {resident.name: {resident.key.id: "A" * 86}}}


def tell_little(resident):
    resident.answer_backfill = lambda _, query, *rest: resident.enveloped(
        list(resident.back_from(query["v"], min(PAGE, int(query["limit"]))).values())
    )


def place_bad(make, gone, resident, copy, count):
    for number in range(count):
        bad = make(gone, resident, copy, f"bad {number}")
        resident.know(bad)
        resident.before[id_of(bad)] = dict(copy.state)
        resident.place(copy, bad)


@pytest.mark.parametrize("count", [1, PAGE + 1])
@pytest.mark.parametrize("make", [by_who_is_gone, wrongly_signed])
def test_what_is_before_an_event_that_cannot_be_checked_is_read(server, alice, resident, gone, make, count):
    """One, or more than a page of them."""
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room)
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    tell_little(resident)
    for number in range(BEFORE):
        resident.place(copy, resident.message(copy, f"before {number}"))
    place_bad(make, gone, resident, copy, count)
    for number in range(BEHIND):
        last = resident.place(copy, resident.message(copy, f"behind {number}"))
    assert resident.transact(server, [last]) == {id_of(last): {}}
    see(alice, room, id_of(last))
    told = [f"before {number}" for number in range(BEFORE)] + [f"behind {number}" for number in range(BEHIND)]
    assert bodies(room_messages(alice, room)) == told
    # The room goes on behind all that.
    see(alice, room, alice.send(room, "and on"))


@pytest.mark.parametrize("make", [by_who_is_gone, wrongly_signed])
def test_what_is_before_a_page_of_them_is_read_where_it_is_known_from_the_state(server, alice, resident, gone, make):
    """The last of the page follows an event that came with the state of the join."""
    copy = resident.create()
    tell_little(resident)
    for number in range(BEFORE):
        resident.place(copy, resident.message(copy, f"before {number}"))
    resident.next(copy, "m.room.topic", {"topic": "Rabbits"}, state_key="")
    # One page each, so that the second brings nothing that can be taken in.
    place_bad(make, gone, resident, copy, PAGE)
    for number in range(PAGE):
        resident.place(copy, resident.message(copy, f"behind {number}"))
    alice.join(copy.room_id, query=via(resident))
    told = [f"before {number}" for number in range(BEFORE)] + [f"behind {number}" for number in range(PAGE)]
    assert bodies(room_messages(alice, copy.room_id)) == told
