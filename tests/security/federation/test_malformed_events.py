"""Events made to break whoever reads them: the room, sync, invites and history go on.

The class of fault: a malformed event poisons a room, sync, an invite or pagination.
"""

import json
import sys

import pytest

from harness.client import Client, bodies, timeline, unique
from harness.events import id_of, nested
from harness.participant import path
from harness.rooms import invited, see
from harness.senders import room_messages


DEEPEST = (1 << 53) - 1
# What replaces parts of a message; what is in order by the letter may be taken in.
CHANGES = {
    "deep objects": {"content": {"body": nested(900)}},
    "deep arrays": {"content": {"body": nested(900, "array")}},
    "far too deep": {"content": {"body": nested(15_000, "array")}},
    "the greatest depth": {"depth": DEEPEST},
    "a greater depth": {"depth": DEEPEST + 1},
    "a negative depth": {"depth": -1},
    "a fraction": {"content": {"body": 1.5}},
    "a huge number": {"content": {"body": 10**30}},
    "a body that is no text": {"content": {"body": {"a": 1}, "msgtype": 7}},
    "a relation that is none": {"content": {"body": "x", "m.relates_to": 5}},
    "a relation to nothing": {"content": {"m.relates_to": {"rel_type": "m.replace", "event_id": 5}, "body": "x"}},
    "a thread of itself": {"content": {"m.relates_to": {"rel_type": "m.thread", "event_id": "$" + "A" * 43}}},
    "mentions that are none": {"content": {"body": "x", "m.mentions": {"user_ids": "everybody", "room": 1}}},
    "no content": {"content": None},
    "a content that is a list": {"content": []},
    "a type that is a number": {"type": 5},
    "a type that is too long": {"type": "x" * 300},
    "an empty type": {"type": ""},
    "a sender that is none": {"sender": "mallory"},
    "a sender with nothing in it": {"sender": {}},
    "a room that is none": {"room_id": 5},
    "times that are texts": {"origin_server_ts": "now"},
    "a negative time": {"origin_server_ts": -1},
    "a time far ahead": {"origin_server_ts": DEEPEST},
    "no predecessors": {"prev_events": []},
    "predecessors that are none": {"prev_events": [5]},
    "predecessors in a text": {"prev_events": "$x"},
    "too many predecessors": {"prev_events": ["$" + "A" * 43] * 21},
    "too much that allows it": {"auth_events": ["$" + "A" * 43] * 11},
    "nothing that allows it": {"auth_events": []},
    "hashes that are none": {"hashes": 5},
    "surrogates": {"content": {"body": "\ud800"}},
    "zeros": {"content": {"body": "a\0b", "msgtype": "m.text"}},
    "too large": {"content": {"body": "x" * 70_000}},
    "an id of its own": {"event_id": "$own:elsewhere.test"},
    "unsigned parts that mislead": {"unsigned": {"redacted_because": 5, "prev_content": [], "age": "x", "transaction_id": []}},
}
STATES = {
    "power levels in texts": ("m.room.power_levels", "", {"users": {"@x:y.test": "100"}}),
    "power levels that are a list": ("m.room.power_levels", "", {"users": [], "events": 5}),
    "a name that is an object": ("m.room.name", "", {"name": {"a": 1}}),
    "a topic that is a number": ("m.room.topic", "", {"topic": 5, "m.topic": 7}),
    "an avatar that is a list": ("m.room.avatar", "", {"url": [], "info": 5}),
    "an alias that is an object": ("m.room.canonical_alias", "", {"alias": {}, "alt_aliases": 5}),
    "a visibility that is none": ("m.room.history_visibility", "", {"history_visibility": ["x"]}),
    "a join rule that is none": ("m.room.join_rules", "", {"join_rule": {"a": 1}}),
    "an access list that is none": ("m.room.server_acl", "", {"allow": {"*": 1}, "deny": 5}),
    "a tombstone that is none": ("m.room.tombstone", "", {"replacement_room": 5}),
    "encryption that is none": ("m.room.encryption", "", {"algorithm": 5}),
    "a child that is none": ("m.space.child", "!x:y.test", {"via": "everywhere", "order": 5}),
    "pinned events that are none": ("m.room.pinned_events", "", {"pinned": 5}),
    "a retention that is none": ("m.room.retention", "", {"max_lifetime": "x"}),
    "a member without membership": ("m.room.member", "@x:y.test", {}),
    "a member that is nobody": ("m.room.member", "nobody", {"membership": "join"}),
}


@pytest.fixture
def version():
    """That of the room."""
    return "11"


@pytest.fixture
def room(alice, version):
    return alice.create_room(preset="public_chat", room_version=version)


@pytest.fixture
def deep_recursion():
    """Lets Python write what is nested more deeply than it is used to."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


def made(hostile, copy, change):
    """The event, as well as it can be signed."""
    event = hostile.message(copy, "changed")
    bare = {name: value for name, value in event.items() if name not in ("hashes", "signatures")}
    try:
        return hostile.sign({**bare, **change})
    except (KeyError, TypeError, AttributeError):
        return {**event, **change}


def sends(server, hostile, event, beside):
    """Sends it beside another event, which is taken whatever becomes of it."""
    content = {"pdus": [event, beside], "edus": []}
    # Half of a surrogate pair can be told as an escape only.
    body = json.dumps(content).encode()
    status, answer = hostile.send(server, "PUT", path("v1/send/{}", unique("txn")), content, body=body)
    if "\\ud800" in body.decode():
        # No text has it, so that no signature can be over one.
        assert status == 400, answer
    else:
        assert status == 200 and answer["pdus"][id_of(beside)] == {}, answer


def assert_sound(server, hostile, copy, alice, room):
    """The room goes on in all ways: for those in it, those who come in, and the hostile server itself."""
    good = hostile.message(copy, "good")
    hostile.transact(server, [good])
    own = alice.send(room, "own")
    Client(alice.base_url, alice.user_id, alice.token, alice.device_id).sync()
    see(alice, room, own)
    seen = [event["event_id"] for event in room_messages(alice, room)]
    assert own in seen and id_of(good) in seen
    alice.get("rooms/{roomId}/state", room)
    alice.get("rooms/{roomId}/members", room)
    alice.get("rooms/{roomId}/context/{eventId}", room, own)


@pytest.mark.usefixtures("deep_recursion")
@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_malformed_event_poisons_nothing(server, hostile, copy, alice, room, change, version):
    alice.sync()
    event = made(hostile, copy, CHANGES[change])
    sends(server, hostile, event, hostile.message(copy, "beside"))
    assert_sound(server, hostile, copy, alice, room)


@pytest.mark.parametrize("version", ["12"])
def test_what_no_event_of_version_12_may_say_poisons_nothing(server, hostile, copy, alice, room, version):
    """The room is called like the event that created it, which is the only one and which no other names."""
    alice.sync()
    create_id = f"${room[1:]}"
    allowing = copy.allowing("m.room.message", copy.user)
    assert create_id not in allowing
    second = {"type": "m.room.create", "state_key": "", "content": {"room_version": "12"}}
    for change in (
        {"auth_events": [create_id, *allowing]},
        {"auth_events": [create_id]},
        {"room_id": f"{room}:{hostile.name}"},
        {**second, "room_id": room},
        {**second, "prev_events": [], "auth_events": [], "room_id": room},
    ):
        event = made(hostile, copy, change)
        beside = hostile.message(copy, "beside")
        sends(server, hostile, event, beside)
        see(alice, room, id_of(beside))
        told = hostile.send(server, "GET", path("v1/event/{}", id_of(event)))
        assert told[0] == 404, told
    assert_sound(server, hostile, copy, alice, room)
    assert set(bodies(room_messages(alice, room))) == {"beside", "good", "own"}


# What a user of the hostile server puts into a message to a device.
VALUES = {
    "a huge number": 10**30,
    "deep objects": nested(900),
    "deep arrays": nested(900, "array"),
    "as deep as a message is long": nested(15_000, "array"),
}


@pytest.mark.usefixtures("deep_recursion")
@pytest.mark.parametrize("value", VALUES)
def test_a_malformed_message_to_a_device_costs_no_other(server, hostile, copy, alice, value):
    def message(name, content):
        told = {"sender": hostile.user(), "type": "m.test", "message_id": unique("message")}
        messages = {alice.user_id: {alice.device_id: {"name": name, **content}}}
        return {"edu_type": "m.direct_to_device", "content": {**told, "messages": messages}}

    alice.sync()
    event = hostile.message(copy, "beside")
    edus = [message("before", {}), message("odd", {"x": VALUES[value]}), message("behind", {"x": 1})]
    assert hostile.transact(server, [event], edus) == {id_of(event): {}}
    seen, events = [], []

    def all_seen(answer):
        seen.extend(told["content"]["name"] for told in answer.get("to_device", {}).get("events", []))
        events.extend(told["event_id"] for told in timeline(answer, copy.room_id))
        return "behind" in seen and id_of(event) in events

    alice.sync_until(all_seen)
    assert seen == ["before", "behind"]


@pytest.mark.parametrize("wrong", STATES)
def test_malformed_state_poisons_nothing(server, hostile, copy, alice, room, wrong):
    """The hostile user may set any state of the room."""
    power = alice.state(room, "m.room.power_levels")
    power["users"][hostile.user()] = 100
    event_id = alice.set_state(room, "m.room.power_levels", power)
    hostile.until(lambda: any(id_of(event) == event_id for event in hostile.pdus))
    hostile.place(copy, hostile.events[event_id])
    alice.sync()
    type, key, content = STATES[wrong]
    event = hostile.event(copy, type, content, state_key=key)
    if "error" not in hostile.transact(server, [event]).get(id_of(event), {"error": ""}):
        hostile.place(copy, event)
    Client(alice.base_url, alice.user_id, alice.token, alice.device_id).sync()
    bob = alice.register("bob")
    bob.send_raw("POST", f"/_matrix/client/v3/join/{room}", json={})
    bob.sync()
    alice.sync()
    alice.get("rooms/{roomId}/members", room)
    alice.get("publicRooms")
    alice.messages(room)
    hostile.transact(server, [hostile.message(copy, "good")])
    alice.send(room, "own")
    # A broken access list lets no other server in.
    wanted = {"own"} if type == "m.room.server_acl" else {"own", "good"}
    assert wanted <= set(bodies(room_messages(alice, room)))


def test_what_is_shown_of_an_invite_poisons_nothing(server, hostile, alice):
    copy = hostile.create("invite")
    event = hostile.event(copy, "m.room.member", {"membership": "invite", "displayname": 5}, state_key=alice.user_id)
    shown = [
        {"type": "m.room.name", "state_key": "", "sender": hostile.user(), "content": {"name": {"a": nested(80)}}},
        {"type": "m.room.member", "state_key": alice.user_id, "sender": 5, "content": []},
        {"type": 5, "content": {}},
        {},
    ]
    for state in (shown, shown[:1], [], [5], "nothing"):
        body = {"room_version": "11", "event": event, "invite_room_state": state}
        target = f"/_matrix/federation/v2/invite/{copy.room_id}/{id_of(event)}"
        assert hostile.send(server, "PUT", target, body)[0] in (200, 400)
        alice.sync()
        Client(alice.base_url, alice.user_id, alice.token, alice.device_id).sync()
    other = hostile.create("invite")
    assert hostile.invite(server, other, alice.user_id)[0] == 200
    alice.since = None
    alice.sync_until(lambda answer: invited(answer, other.room_id) or other.room_id in str(answer))
