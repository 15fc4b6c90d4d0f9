"""State that another server tells is not believed: only what was asked for, rightly signed and allowed, is kept.

The class of fault: state injected in the answer to a join, or to a question for state.
"""

import pytest

from harness.client import bodies
from harness.events import Copy, id_of
from harness.participant import UNKNOWN, Participant, path
from harness.peer import now_ms
from harness.rooms import joined_members, see, state, via
from harness.senders import room_messages
from harness.waiting import until


def topics(client, room_id):
    return [event["content"] for event in state(client, room_id) if event["type"] == "m.room.topic"]


def injected(hostile, server, copy, alice):
    """Events that have no place in a room's state, by what is wrong with them."""
    def topic(sender, **more):
        return hostile.event(copy, "m.room.topic", {"topic": "injected"}, sender=sender, state_key="", **more)

    elsewhere = Copy("!elsewhere:" + hostile.name, copy.state, copy.ends, copy.depth)
    unsigned = topic(hostile.user())
    power = {"users": {hostile.user("eve"): 100}}
    return {
        "not signed": {**unsigned, "signatures": {}},
        "in another server's name": topic("@vera:victim.test"),
        "in the name of our user": hostile.event(
            copy, "m.room.power_levels", power, sender=alice.user_id, state_key=""
        ),
        "by who is not in the room": topic(hostile.user("nobody")),
        "of another room": hostile.event(elsewhere, "m.room.topic", {"topic": "injected"}, state_key=""),
        "with another content than was signed": {**topic(hostile.user()), "content": {"topic": "injected"}, "depth": 3},
        "a message": hostile.message(copy, "injected"),
        "a second create event": hostile.event(copy, "m.room.create", {"room_version": "11"}, state_key="", auth_events=[]),
    }


WRONGS = [
    "not signed", "in another server's name", "in the name of our user", "by who is not in the room",
    "of another room", "with another content than was signed", "a message", "a second create event",
]


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("place", ["state", "auth_chain"])
def test_a_join_brings_nothing_that_is_not_the_rooms(server, hostile, alice, wrong, place):
    copy = hostile.create()
    event = injected(hostile, server, copy, alice)[wrong]
    answer_send_join = hostile.answer_send_join

    def answer(values, query, body):
        status, answer = answer_send_join(values, query, body)
        return status, {**answer, place: [*answer[place], event]}

    hostile.answer_send_join = answer
    right = set(copy.state.values())
    response = alice.send_raw("POST", f"/_matrix/client/v3/join/{copy.room_id}", json={}, params=via(hostile))
    if response.status_code != 200:
        assert response.status_code in (403, 502), response.text
        assert copy.room_id not in alice.get("joined_rooms")["joined_rooms"]
        return
    (own,) = [event["event_id"] for event in state(alice, copy.room_id) if event["state_key"] == alice.user_id]
    assert {event["event_id"] for event in state(alice, copy.room_id)} == {*right, own}


def test_what_was_not_asked_for_is_not_kept(server, hostile, alice):
    """An event that nothing leads to is not stored because it comes along with a join."""
    copy = hostile.create()
    stray = hostile.event(copy, "m.room.topic", {"topic": "stray"}, state_key="")
    answer_send_join = hostile.answer_send_join

    def answer(values, query, body):
        status, answer = answer_send_join(values, query, body)
        return status, {**answer, "auth_chain": [*answer["auth_chain"], stray]}

    hostile.answer_send_join = answer
    alice.join(copy.room_id, query=via(hostile))
    assert hostile.send(server, "GET", path("v1/event/{}", id_of(stray)))[0] == 404


class Swapping(Participant):
    """Gives another event than the one that it is asked for, by its id and with all that allows another."""

    given = None

    def answer_event(self, values, query, body):
        return 200, {"origin": self.name, "origin_server_ts": now_ms(), "pdus": [self.given]}

    def answer_event_auth(self, values, query, body):
        return 200, {"auth_chain": [self.given]}


def test_another_event_than_was_asked_for_is_not_kept(server, network, alice, room):
    hostile = network.peer(kind=Swapping)
    copy = hostile.join(server, room)
    hidden = hostile.event(copy, "m.room.topic", {"topic": "hidden"}, state_key="")
    hostile.given = hostile.message(copy, "given instead")
    # A message that names an event as allowing it which is not here.
    allowed = copy.allowing("m.room.message", hostile.user())
    for times in (1, 2):
        asking = hostile.message(copy, f"asking {times}", auth_events=[*allowed, id_of(hidden)])
        hostile.transact(server, [asking])
        # Nothing is asked again before what came of the first question is dealt with.
        until(lambda: len(hostile.asked(path("v1/event/{}", id_of(hidden)))) >= times)
    good = hostile.place(copy, hostile.message(copy, "good"))
    hostile.transact(server, [good])
    see(alice, room, id_of(good))
    assert hostile.send(server, "GET", path("v1/event/{}", id_of(hostile.given)))[0] == 404
    assert "given instead" not in bodies(room_messages(alice, room))


def chain(hostile, copy, length, first):
    """Changes of a name, each allowed by the one before, the first by an event of this id."""
    user, events = hostile.user(), []
    for number in range(length):
        content = {"membership": "join", "displayname": f"{number}"}
        allowed = [*copy.allowing("m.room.member", user, user, content), first]
        events.append(hostile.event(copy, "m.room.member", content, state_key=user, auth_events=allowed))
        first = id_of(events[-1])
    return events


NOWHERE = "$" + "A" * 43


def chains(hostile, copy):
    """What is told as that which allows an event, by what is wrong with it: the id that the event names, and the answer."""
    elsewhere = Copy("!elsewhere:" + hostile.name, copy.state, copy.ends, copy.depth)
    endless, other = chain(hostile, copy, 200, NOWHERE), chain(hostile, elsewhere, 5, copy.state["m.room.create", ""])
    return {
        "without a beginning": (id_of(endless[-1]), endless),
        "the same again and again": (id_of(endless[-1]), endless * 50),
        "of another room": (id_of(other[-1]), other),
        "of another event": (NOWHERE, [hostile.message(copy, "unrelated")]),
    }


@pytest.mark.parametrize("wrong", ["without a beginning", "the same again and again", "of another room", "of another event"])
def test_what_is_told_to_allow_an_event_brings_nothing_that_does_not(server, hostile, copy, alice, room, wrong):
    named, told = chains(hostile, copy)[wrong]
    hostile.answer_event = lambda *_: UNKNOWN
    hostile.answer_event_auth = lambda *_: (200, {"auth_chain": told})
    allowed = copy.allowing("m.room.message", hostile.user())
    for times in (1, 2):
        hostile.transact(server, [hostile.message(copy, f"asking {times}", auth_events=[*allowed, named])])
        # Nothing is asked again before what came of the first answer is dealt with.
        until(lambda: len(hostile.versions_asked("event_auth")) >= times)
    good = hostile.place(copy, hostile.message(copy, "good"))
    hostile.transact(server, [good])
    see(alice, room, id_of(good))
    for event in told[:200]:
        assert hostile.send(server, "GET", path("v1/event/{}", id_of(event)))[0] == 404
    assert bodies(room_messages(alice, room)) == ["good"]
    # Three rounds at most, of a few questions each.
    assert len(hostile.versions_asked("event_auth")) <= 3 and len(hostile.versions_asked("event")) <= 10


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONGS if wrong != "in the name of our user"])
def test_a_state_that_is_told_over_a_gap_brings_nothing_that_is_not_the_rooms(server, hostile, copy, alice, room, wrong):
    """An event follows one that nobody gives, so that the state before it is asked for."""
    event = injected(hostile, server, copy, alice)[wrong]
    hostile.know(event)
    after = hostile.message(copy, "after the gap", prev_events=["$" + "A" * 43])
    hostile.before[id_of(after)] = {**copy.state, ("m.room.topic", ""): id_of(event)}
    hostile.transact(server, [after])
    # The event is taken in with what is right of the state.
    see(alice, room, id_of(after))
    good = hostile.message(copy, "good")
    hostile.transact(server, [good])
    see(alice, room, id_of(good))
    assert topics(alice, room) == []
    assert joined_members(alice, room) == {alice.user_id, hostile.user()}
    power = alice.state(room, "m.room.power_levels")
    assert power["users"] == {alice.user_id: 100}
