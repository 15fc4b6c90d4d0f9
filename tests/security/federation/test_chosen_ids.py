"""Rooms of the first two versions, where whoever sends an event says what it is called.

The class of fault: an event that is called like another one takes its place, in its room or in another one's.
"""

import pytest

from harness.client import bodies, unique
from harness.events import Copy
from harness.participant import Participant, path
from harness.peer import now_ms
from harness.rooms import see, state_ids
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

VERSIONS = ["1", "2"]
# What events name others with, beside their ids; nobody looks at it.
REFERENCE = {"sha256": "A" * 43}
NOT_FOUND = 404
# What a message says that says `one`.
ONE = {"msgtype": "m.text", "body": "one"}


class Choosing(Participant):
    """Calls its events as it likes."""

    def chosen(self):
        return f"${unique('event')}:{self.name}"

    def enter(self, server, room):
        """Brings its user into a room."""
        user, event_id = self.user(), self.chosen()
        answer = self.ask(server, "GET", path("v1/make_join/{}/{}?ver=1&ver=2", room, user))
        join = self.sign({**answer["event"], "event_id": event_id, "origin": self.name})
        told = self.ask(server, "PUT", path("v2/send_join/{}/{}", room, event_id), join)
        state = {(event["type"], event["state_key"]): event["event_id"] for event in told["state"]}
        return Copy(room, {**state, ("m.room.member", user): event_id}, [event_id], join["depth"], user)

    def called(self, event_id, copy, body, type="m.room.message", prev=None, **more):
        """An event of that id that would come next in the room. State says the same in its topic."""
        content = {"topic": body} if type == "m.room.topic" else {"msgtype": "m.text", "body": body}
        event = {
            "event_id": event_id,
            "room_id": copy.room_id,
            "type": type,
            "sender": copy.user,
            "origin": self.name,
            "content": content,
            "prev_events": [[prev_id, REFERENCE] for prev_id in prev or copy.ends],
            "auth_events": [[allowing, REFERENCE] for allowing in copy.allowing(type, copy.user)],
            "depth": copy.depth + 1,
            "origin_server_ts": now_ms(),
            **more,
        }
        return self.sign(event)

    def told_of(self, server, event_id):
        """The content of the event of that id as the server tells it; None if it tells of none."""
        status, answer = self.send(server, "GET", path("v1/event/{}", event_id))
        assert status in (200, NOT_FOUND), answer
        return answer["pdus"][0]["content"] if status == 200 else None


@pytest.fixture
def server(network, tmp_path):
    """One whose database is checked after each test."""
    with sound(network.server(tmp_path)) as server:
        yield server


@pytest.fixture
def hostile(network):
    return network.peer(kind=Choosing)


def public_room(alice, version):
    """A room in which everybody may set the topic, and nobody but Alice the name."""
    levels = {"events": {"m.room.topic": 0}}
    return alice.create_room(preset="public_chat", room_version=version, power_level_content_override=levels)


def assert_goes_on(server, hostile, copy, alice, wanted):
    """The room has these messages, takes what the hostile server sends rightly, and sends what Alice says."""
    event_id = hostile.chosen()
    prev = [answer[0] for answer in template(server, hostile, copy)["prev_events"]]
    good = hostile.called(event_id, copy, "good", prev=prev, depth=copy.depth + 100)
    assert hostile.transact(server, [good]) == {event_id: {}}
    see(alice, copy.room_id, event_id)
    own = alice.send(copy.room_id, "own")
    see(alice, copy.room_id, own)
    assert bodies(room_messages(alice, copy.room_id)) == [*wanted, "good", "own"]
    hostile.until(lambda: own in [event["event_id"] for event in hostile.pdus])


def template(server, hostile, copy):
    return hostile.ask(server, "GET", path("v1/make_join/{}/{}?ver=1&ver=2", copy.room_id, copy.user))["event"]


@pytest.mark.parametrize("is_together", [False, True], ids=["apart", "together"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_that_is_called_like_another_one(server, hostile, alice, version, is_together):
    """It is passed over; of two in one transaction either one is, and nobody is told of it."""
    room = public_room(alice, version)
    copy = hostile.enter(server, room)
    alice.sync()
    event_id = hostile.chosen()
    one, two = (hostile.called(event_id, copy, body) for body in ("one", "two"))
    for events in [[one, two]] if is_together else [[one], [two]]:
        assert hostile.transact(server, events).keys() == {event_id}
    kept = see(alice, room, event_id)["content"]
    assert kept in ([one["content"], two["content"]] if is_together else [one["content"]])
    assert hostile.told_of(server, event_id) == kept
    assert alice.get("rooms/{roomId}/event/{eventId}", room, event_id)["content"] == kept
    assert_goes_on(server, hostile, copy, alice, [kept["body"]])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_state_that_is_called_like_another_event(server, hostile, alice, version):
    """Neither like a message nor like a state is it set."""
    room = public_room(alice, version)
    copy = hostile.enter(server, room)
    alice.sync()
    message, topic = hostile.chosen(), hostile.chosen()
    events = [hostile.called(message, copy, "one"), hostile.called(topic, copy, "one", "m.room.topic", state_key="")]
    assert hostile.transact(server, events) == {message: {}, topic: {}}
    see(alice, room, topic)
    before = state_ids(alice, room)
    for event_id in (message, topic):
        events = [hostile.called(event_id, copy, "two", "m.room.topic", state_key="", prev=[message, topic])]
        assert hostile.transact(server, events).keys() == {event_id}
        # Nor does a message replace it.
        hostile.transact(server, [hostile.called(event_id, copy, "three")])
    assert alice.state(room, "m.room.topic") == {"topic": "one"}
    assert state_ids(alice, room) == before and topic in before
    assert [hostile.told_of(server, event_id) for event_id in (message, topic)] == [ONE, {"topic": "one"}]
    assert_goes_on(server, hostile, copy, alice, ["one"])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_like_a_rejected_event(server, hostile, alice, version):
    """It does not come in under the name of what may not be, and that does not come in by it."""
    room = public_room(alice, version)
    copy = hostile.enter(server, room)
    alice.sync()
    event_id = hostile.chosen()
    name = hostile.called(event_id, copy, "one", "m.room.name", state_key="")
    assert "error" in hostile.transact(server, [name])[event_id]
    hostile.transact(server, [hostile.called(event_id, copy, "two")])
    hostile.transact(server, [hostile.called(event_id, copy, "two", "m.room.topic", state_key="")])
    assert hostile.told_of(server, event_id) is None
    alice.state(room, "m.room.topic", status=NOT_FOUND)
    alice.state(room, "m.room.name", status=NOT_FOUND)
    assert_goes_on(server, hostile, copy, alice, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_like_an_event_of_another_room(server, hostile, alice, version):
    """Each room keeps what it has, and none goes on from an event of the other one."""
    rooms = [public_room(alice, version) for _ in range(2)]
    first, second = (hostile.enter(server, room) for room in rooms)
    alice.sync()
    event_id, after = hostile.chosen(), hostile.chosen()
    assert hostile.transact(server, [hostile.called(event_id, first, "one")]) == {event_id: {}}
    see(alice, rooms[0], event_id)
    before = [state_ids(alice, room) for room in rooms]
    two = hostile.called(event_id, second, "two")
    topic = hostile.called(event_id, second, "two", "m.room.topic", state_key="")
    following = hostile.called(after, second, "after it", prev=[event_id])
    for event in (two, topic):
        assert "error" in hostile.transact(server, [event])[event_id]
    hostile.transact(server, [following])
    assert hostile.told_of(server, event_id) == ONE
    assert alice.get("rooms/{roomId}/event/{eventId}", rooms[0], event_id)["content"] == ONE
    alice.get("rooms/{roomId}/event/{eventId}", rooms[1], event_id, status=NOT_FOUND)
    assert [state_ids(alice, room) for room in rooms] == before
    for copy, wanted in ((first, ["one"]), (second, [])):
        assert_goes_on(server, hostile, copy, alice, wanted)


# Transactions with an event for each of two rooms, which are seen to at once.
ATTEMPTS = 60


@pytest.mark.parametrize("version", VERSIONS)
def test_two_of_one_name_for_two_rooms_in_one_transaction(server, hostile, alice, version):
    """One of the rooms has it, whichever that is."""
    rooms = [public_room(alice, version) for _ in range(2)]
    copies = [hostile.enter(server, room) for room in rooms]
    alice.sync()
    kept = {room: [] for room in rooms}
    for _ in range(ATTEMPTS):
        event_id = hostile.chosen()
        events = [hostile.called(event_id, copy, copy.room_id) for copy in copies]
        assert hostile.transact(server, events).keys() == {event_id}
        there = hostile.told_of(server, event_id)["body"]
        (other,) = set(rooms) - {there}
        assert alice.get("rooms/{roomId}/event/{eventId}", there, event_id)["content"]["body"] == there
        alice.get("rooms/{roomId}/event/{eventId}", other, event_id, status=NOT_FOUND)
        kept[there].append(there)
    for copy in copies:
        assert_goes_on(server, hostile, copy, alice, kept[copy.room_id])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_like_an_event_that_waits(server, hostile, alice, version):
    """It is in the room of whoever comes in first, and in that one alone when what the other waited for is there."""
    rooms = [public_room(alice, version) for _ in range(2)]
    first, second = (hostile.enter(server, room) for room in rooms)
    alice.sync()
    missing, event_id = hostile.chosen(), hostile.chosen()
    waiting = hostile.called(event_id, first, "one", prev=[missing])
    assert hostile.transact(server, [waiting]).keys() == {event_id}
    assert hostile.transact(server, [hostile.called(event_id, second, "two")]).keys() == {event_id}
    hostile.transact(server, [hostile.called(missing, first, "between")])
    see(alice, rooms[0], missing)
    there = hostile.told_of(server, event_id)["body"]
    for copy, word, before in ((first, "one", ["between"]), (second, "two", [])):
        assert_goes_on(server, hostile, copy, alice, before + [word] * (there == word))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_like_what_is_only_named_in_another_room(server, hostile, alice, version):
    """There it allows an event, and is none that anybody followed: it stays what it is."""
    rooms = [public_room(alice, version) for _ in range(2)]
    first, second = (hostile.enter(server, room) for room in rooms)
    alice.sync()
    event_id, by_it, user = hostile.chosen(), hostile.chosen(), hostile.user("other")
    allowing = first.allowing("m.room.member", user, user, {"membership": "join"})
    named = {"auth_events": [[allowing_id, REFERENCE] for allowing_id in allowing], "sender": user, "state_key": user}
    join = hostile.called(event_id, first, "", "m.room.member", content={"membership": "join"}, **named)
    hostile.events[event_id] = join
    allowing = [first.state["m.room.create", ""], first.state["m.room.power_levels", ""], event_id]
    said = hostile.called(
        by_it, first, "by it", sender=user, auth_events=[[allowing_id, REFERENCE] for allowing_id in allowing]
    )
    hostile.transact(server, [said])
    # It is fetched for what names it, which is not allowed all the same: the user is not in the room there.
    until(lambda: hostile.told_of(server, event_id))
    before = [state_ids(alice, room) for room in rooms]
    known = hostile.told_of(server, event_id)
    two = hostile.called(event_id, second, "two")
    assert "error" in hostile.transact(server, [two])[event_id]
    following = hostile.called(hostile.chosen(), second, "after it", prev=[event_id])
    hostile.transact(server, [following])
    assert [state_ids(alice, room) for room in rooms] == before
    assert hostile.told_of(server, event_id) == known
    for copy in (first, second):
        assert_goes_on(server, hostile, copy, alice, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_like_an_event_of_another_server(server, hostile, alice, version):
    """In these versions whoever an id names must have signed the event."""
    room = public_room(alice, version)
    copy = hostile.enter(server, room)
    alice.sync()
    own = alice.send(room, "one")
    assert own.endswith(f":{server.name}")
    for event_id in (own, f"$untaken:{server.name}"):
        event = hostile.called(event_id, copy, "two")
        assert "error" in hostile.transact(server, [event]).get(event_id, {"error": "left out"})
    assert hostile.told_of(server, own) == ONE
    assert_goes_on(server, hostile, copy, alice, ["one"])
