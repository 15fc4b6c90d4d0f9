"""A server that asks to sign an invite gets a signature for nothing else, in either version of the endpoint and in rooms of any
version: not for an event of another kind, room, id, sender or target, however rightly the server has signed it itself.
"""

import json

import pytest

from harness.client import unique
from harness.events import id_of, signed_by
from harness.participant import path
from harness.peer import authorization, canonical, now_ms
from harness.rooms import invited

# Endpoint and room version; the first version of the endpoint is for those whose events have ids of their own.
WAYS = [("v1", "1"), ("v2", "2"), ("v2", "3"), ("v2", "10"), ("v2", "11"), ("v2", "12")]
OLD = {"1", "2"}
# More than an event may have in all.
HUGE = "x" * 70_000


def once(pairs):
    """An object that has each of its members once."""
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


class Asking:
    """A hostile server that asks for a signature, and what it can put together."""

    def __init__(self, server, hostile, other, target, endpoint, version):
        self.server, self.hostile, self.other, self.target = server, hostile, other, target
        self.endpoint, self.version = endpoint, version
        self.create = hostile.begin("12")
        self.room_id = "!" + id_of(self.create)[1:] if version == "12" else self.new_room()

    def new_room(self):
        return f"!{unique('room')}:{self.hostile.name}"

    def invite(self, is_old=None, **changes):
        """An invite, with these members or without them, signed by whoever can sign it."""
        event = {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": self.hostile.user(),
            "state_key": self.target,
            "content": {"membership": "invite"},
            "prev_events": [],
            "auth_events": [],
            "depth": 5,
            "origin_server_ts": now_ms(),
        }
        if self.version in OLD if is_old is None else is_old:
            event["event_id"] = f"${unique('event')}:{self.hostile.name}"
        event = {name: value for name, value in {**event, **changes}.items() if value is not None}
        event = self.hostile.sign(event)
        return self.other.sign(event) if self.other.name in str(event.get("sender")) else event

    def id_of(self, event):
        """In version 3 an id is written otherwise than in later ones."""
        made = id_of(event)
        return event.get("event_id", made.replace("-", "+").replace("_", "/") if self.version == "3" else made)

    def ask(self, event, room_id=None, event_id=None, text=None):
        """Answers with the status and what is answered; `text` stands in the event's place."""
        body = event
        if self.endpoint == "v2":
            shown = [self.create] if self.version == "12" else []
            body = {"room_version": self.version, "event": event, "invite_room_state": shown}
        data = canonical(body)
        if text:
            data = data.replace(canonical(event), text)
        target = path(self.endpoint + "/invite/{}/{}", room_id or self.room_id, event_id or self.id_of(event))
        header = authorization("PUT", target, self.hostile.name, self.server.name, self.hostile.key, body)
        status, _, answer = self.hostile.send_raw(self.server, "PUT", target, body=data, headers=[header])
        return status, json.loads(answer, object_pairs_hook=once)


@pytest.fixture(params=WAYS, ids=["-".join(way) for way in WAYS])
def ask_anew(request, server, hostile, honest, alice):
    """Makes one that asks about a room of its own, in one of the ways."""
    return lambda: Asking(server, hostile, honest, alice.user_id, *request.param)


def changed(**changes):
    """A lie that stands in the event, which is signed with it."""
    return lambda asking: {"event": asking.invite(**changes)}


def member(content):
    return changed(content=content)


LIES = {
    "a sender of another server": lambda asking: {"event": asking.invite(sender=asking.other.user())},
    "a sender of ours": lambda asking: {"event": asking.invite(sender=f"@admin:{asking.server.name}")},
    "the target as the sender": lambda asking: {"event": asking.invite(sender=asking.target)},
    "a sender that only begins like one of its own": lambda asking: {
        "event": asking.invite(sender=f"{asking.hostile.user()}:{asking.other.name}")
    },
    "two senders in a list": lambda asking: {"event": asking.invite(sender=[asking.hostile.user(), asking.other.user()])},
    "a sender that is no user": changed(sender="somebody"),
    "no sender": changed(sender=None),
    "another room in the path": lambda asking: {"event": asking.invite(), "room_id": asking.new_room()},
    "another room in the event": lambda asking: {"event": asking.invite(room_id=asking.new_room())},
    "a room of ours in the path": lambda asking: {"event": asking.invite(), "room_id": f"!ours:{asking.server.name}"},
    "no room": changed(room_id=None),
    "another event's id": lambda asking: {"event": asking.invite(), "event_id": asking.id_of(asking.invite(depth=6))},
    "no event's id": lambda asking: {"event": asking.invite(), "event_id": "$nothing"},
    "an event of another room version": lambda asking: {"event": asking.invite(is_old=asking.version not in OLD)},
    "the room's powers": changed(type="m.room.power_levels"),
    "a message": changed(type="m.room.message", state_key=None),
    "an invite by an address": changed(type="m.room.third_party_invite"),
    "a type that only begins alike": changed(type="m.room.member.more"),
    "a user of another server": lambda asking: {"event": asking.invite(state_key=asking.other.user())},
    "a user of its own": lambda asking: {"event": asking.invite(state_key=asking.hostile.user())},
    "a user who is not there": lambda asking: {"event": asking.invite(state_key=f"@nobody:{asking.server.name}")},
    "nobody": changed(state_key=""),
    "no state key": changed(state_key=None),
    "state keys in a list": lambda asking: {"event": asking.invite(state_key=[asking.target])},
    **{f"a {membership}": member({"membership": membership}) for membership in ("join", "leave", "ban", "knock", "INVITE")},
    "memberships in a list": member({"membership": ["invite"]}),
    "no membership": member({}),
    "a content that is none": member(["invite"]),
    "more than an event may have": member({"membership": "invite", "displayname": HUGE}),
    "a huge sender": lambda asking: {"event": asking.invite(sender=f"@{'x' * 300}:{asking.hostile.name}")},
    "no signature": lambda asking: {"event": {**asking.invite(), "signatures": {}}},
    "another invite's signature": lambda asking: {
        "event": {**asking.invite(), "signatures": asking.invite(depth=6)["signatures"]}
    },
}


def test_an_invite_of_our_user_by_its_own_is_signed(ask_anew, alice, server):
    """What else the lies would be, but for what is said in them."""
    asking = ask_anew()
    event = asking.invite()
    status, answer = asking.ask(event)
    assert status == 200, answer
    (signed,) = signed_by(server, answer)
    assert {**signed, "signatures": {asking.hostile.name: signed["signatures"][asking.hostile.name]}} == event
    assert invited(alice.sync(), asking.room_id)


def test_nothing_else_is_signed(ask_anew, alice, server):
    for name, lie in LIES.items():
        asking = ask_anew()
        status, answer = asking.ask(**lie(asking))
        assert status in (400, 403, 404, 413) and not list(signed_by(server, answer)), (name, status, answer)
        assert "signatures" not in str(answer), name
    assert "invite" not in alice.sync().get("rooms", {})


# Members of an event, each with the value that it must not have.
TWICE = {
    "sender": lambda asking: asking.other.user(),
    "room_id": lambda asking: asking.new_room(),
    "type": lambda asking: "m.room.power_levels",
    "state_key": lambda asking: asking.other.user(),
    "content": lambda asking: {"membership": "join"},
}


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_what_stands_twice_in_a_text_is_signed_as_it_is_read(ask_anew, server, is_first):
    """The event is rightly signed as whoever takes the last of two reads it, which is the truth or the lie."""
    for name, make_lie in TWICE.items():
        asking = ask_anew()
        lie, truth = make_lie(asking), asking.invite()
        event = truth if is_first else asking.invite(**{name: lie})
        key, text = b'"%b":' % name.encode(), canonical(event)
        assert text.count(key) == 1
        text = text.replace(key, key + canonical(lie if is_first else truth[name]) + b"," + key)
        status, answer = asking.ask(event, text=text)
        assert status in (200, 400, 403), (name, answer)
        for signed in signed_by(server, answer):
            told = [signed[member] for member in ("sender", "room_id", "type", "state_key")]
            assert told == [asking.hostile.user(), asking.room_id, "m.room.member", asking.target], name
            assert signed["content"]["membership"] == "invite", name
        assert status != 200 or is_first, name
