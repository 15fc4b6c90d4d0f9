"""What was said before an event that clients are not shown is history like any other: nothing else need lead to it (server-server API,
"Soft failure" and "Rejection").
"""

import pytest

from harness.client import Client, bodies
from harness.events import id_of
from harness.metrics import told
from harness.rooms import see
from harness.senders import room_messages
from harness.server import free_port, sound
from harness.waiting import until

ORDERS = ["first", "afterwards"]


@pytest.fixture(scope="module")
def server(network, tmp_path_factory):
    metrics = f"http://127.0.0.1:{free_port()}"
    with sound(network.server(tmp_path_factory.mktemp("behind"), "--metrics-listen", metrics)) as server:
        server.metrics = metrics
        yield server


@pytest.fixture
def alice(server):
    return Client(server.base_url).register("alice")


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


def not_shown(server):
    """How many events the server has that clients are not shown."""
    counts = told(server.metrics, "warren_federation_events_total")
    return sum(count for (outcome, _), count in counts.items() if outcome in ("soft_failed", "rejected"))


def is_told_of_all(server, alice, resident, copy, bad, after, order):
    """Sends the two events, one after the other has been judged. Only then anybody asks for history: a page of it could tell of the first
    what the second has to."""

    def send_bad():
        count = not_shown(server)
        resident.transact(server, [bad])
        until(lambda: not_shown(server) > count)

    def send_after():
        resident.transact(server, [after])
        see(alice, copy.room_id, id_of(after))

    for send in (send_bad, send_after) if order == "first" else (send_after, send_bad):
        send()
    return until(lambda: bodies(room_messages(alice, copy.room_id)) == ["innocent", "after"])


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_said_before_a_message_of_somebody_banned(server, alice, resident, copy, order):
    # The resident has not heard of that yet.
    alice.post("rooms/{roomId}/ban", copy.room_id, json={"user_id": copy.mole})
    say(resident, copy, "innocent")
    bad = say(resident, copy, "hidden", sender=copy.mole)
    assert is_told_of_all(server, alice, resident, copy, bad, say(resident, copy, "after"), order)


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_said_before_something_that_is_not_allowed(server, alice, resident, copy, order):
    say(resident, copy, "innocent")
    state = dict(copy.state)
    bad = resident.next(copy, "m.room.name", {"name": "the mole's"}, sender=copy.mole, state_key="")
    copy.state = state
    assert is_told_of_all(server, alice, resident, copy, bad, say(resident, copy, "after"), order)
