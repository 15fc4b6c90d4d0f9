"""A hand-written server that is in rooms: it makes events, joins rooms of others, has rooms of its own, and tells what it
is asked of them. Room version 11, as far as tests need it.

It says the truth unless a test makes it lie: by an answer of its own for a path (`answers`), or by an event that it makes
as the test wants it.
"""

import hashlib
import json
import threading
import urllib.parse

from harness.client import unique
from harness.peer import Peer, base64_of, canonical, now_ms, signed

VERSION = "11"
FEDERATION = "/_matrix/federation/"
# What a redaction leaves of an event, and of contents by the type.
KEPT = "type room_id sender state_key content hashes signatures depth prev_events auth_events origin_server_ts".split()
KEPT_OF_CONTENT = {
    "m.room.member": ["membership", "join_authorised_via_users_server"],
    "m.room.join_rules": ["join_rule", "allow"],
    "m.room.history_visibility": ["history_visibility"],
    "m.room.redaction": ["redacts"],
    "m.room.power_levels": "ban events events_default invite kick redact state_default users users_default".split(),
}
# A loaded machine may take its time.
SECONDS_MAX = 60


def redacted(event):
    content = event["content"]
    if event["type"] != "m.room.create":
        kept = KEPT_OF_CONTENT.get(event["type"], [])
        content = {name: content[name] for name in kept if name in content} if isinstance(content, dict) else {}
        invite = event["content"].get("third_party_invite") if isinstance(event["content"], dict) else None
        if event["type"] == "m.room.member" and isinstance(invite, dict) and "signed" in invite:
            content["third_party_invite"] = {"signed": invite["signed"]}
    return {**{name: event[name] for name in KEPT if name in event}, "content": content}


def reference_hash(event):
    bare = {name: value for name, value in redacted(event).items() if name != "signatures"}
    return hashlib.sha256(canonical(bare)).digest()


def id_of(event):
    return "$" + base64_of(reference_hash(event)).replace("+", "-").replace("/", "_")


def hashed(event):
    """The event with the hash of its content."""
    bare = {name: value for name, value in event.items() if name not in ("hashes", "signatures", "unsigned")}
    return {**event, "hashes": {"sha256": base64_of(hashlib.sha256(canonical(bare)).digest())}}


def path(template, *values):
    return FEDERATION + template.format(*(urllib.parse.quote(value, safe="") for value in values))


class Copy:
    """What the server has of a room: its state, and the ends of its graph."""

    def __init__(self, room_id, state, ends, depth):
        self.room_id, self.state, self.ends, self.depth = room_id, dict(state), list(ends), depth

    def allowing(self, type, sender, state_key=None):
        """The ids of the events that allow an event."""
        keys = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", sender)]
        if type == "m.room.member":
            keys += [("m.room.join_rules", ""), ("m.room.member", state_key)]
        found = [self.state[key] for key in keys if key in self.state]
        return list(dict.fromkeys(found))


class Participant(Peer):
    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        # All events that it can tell of, by their ids; the state before those of its own, and its rooms.
        self.events, self.before, self.copies = {}, {}, {}
        self.transactions = []
        self.came = threading.Condition()

    def user(self, word="mallory"):
        return f"@{word}:{self.name}"

    # -- events --------------------------------------------------------------------------------------------------

    def sign(self, event, key=None):
        """The event with its hash, signed as events are: its redacted form."""
        event = hashed(event)
        signatures = signed(redacted(event), self.name, key or self.key)["signatures"]
        return {**event, "signatures": {**event.get("signatures", {}), **signatures}}

    def event(self, copy, type, content, sender=None, state_key=None, key=None, **more):
        """An event that would come next in the room. `more` replaces what it says."""
        sender = sender or self.user()
        event = {
            "room_id": copy.room_id,
            "type": type,
            "sender": sender,
            "content": content,
            "prev_events": list(copy.ends),
            "auth_events": copy.allowing(type, sender, state_key),
            "depth": copy.depth + 1,
            "origin_server_ts": now_ms(),
            **more,
        }
        if state_key is not None:
            event["state_key"] = state_key
        event = self.sign(event, key)
        self.know(event)
        self.before[id_of(event)] = dict(copy.state)
        return event

    def message(self, copy, body="hello", **more):
        return self.event(copy, "m.room.message", {"msgtype": "m.text", "body": body}, **more)

    def know(self, event):
        self.events[id_of(event)] = event

    def place(self, copy, event):
        """Lets the room go on from the event."""
        if "state_key" in event:
            copy.state[event["type"], event["state_key"]] = id_of(event)
        copy.ends, copy.depth = [id_of(event)], event["depth"]
        return event

    def next(self, copy, type, content, **more):
        return self.place(copy, self.event(copy, type, content, **more))

    # -- rooms ---------------------------------------------------------------------------------------------------

    def create(self, join_rule="public", user=None):
        """A room of its own."""
        user = user or self.user()
        copy = Copy(f"!{unique('room')}:{self.name}", {}, [], 0)
        content = {"room_version": VERSION}
        self.next(copy, "m.room.create", content, sender=user, state_key="")
        self.next(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
        self.next(copy, "m.room.power_levels", {"users": {user: 100}}, sender=user, state_key="")
        self.next(copy, "m.room.join_rules", {"join_rule": join_rule}, sender=user, state_key="")
        visibility = {"history_visibility": "shared"}
        self.next(copy, "m.room.history_visibility", visibility, sender=user, state_key="")
        self.copies[copy.room_id] = copy
        return copy

    def join(self, server, room_id, user=None):
        """Brings a user into a room by way of the server that has it."""
        user = user or self.user()
        status, made = self.send(server, "GET", path("v1/make_join/{}/{}?ver=" + VERSION, room_id, user))
        assert status == 200, made
        template = {name: made["event"][name] for name in KEPT if name in made["event"]}
        event = self.sign({**template, "content": {**template["content"], "membership": "join"}})
        status, joined = self.send(server, "PUT", path("v2/send_join/{}/{}", room_id, id_of(event)), event)
        assert status == 200, joined
        for told in [*joined["auth_chain"], *joined["state"], event]:
            self.know(told)
        state = {(told["type"], told["state_key"]): id_of(told) for told in joined["state"]}
        copy = Copy(room_id, state, event["prev_events"], event["depth"] - 1)
        self.before[id_of(event)] = dict(state)
        self.place(copy, event)
        self.copies[room_id] = copy
        return copy

    def invite(self, server, copy, user_id, **more):
        """Invites a user of the server. Answers with status and answer."""
        event = self.event(copy, "m.room.member", {"membership": "invite"}, state_key=user_id, **more)
        return self.send_invite(server, copy.room_id, event)

    def send_invite(self, server, room_id, event, event_id=None):
        body = {"room_version": VERSION, "event": event, "invite_room_state": []}
        return self.send(server, "PUT", path("v2/invite/{}/{}", room_id, event_id or id_of(event)), body)

    def transact(self, server, pdus=(), edus=(), origin=None, transaction_id=None):
        """Sends a transaction. Answers with what was answered to each event."""
        body = {"origin": origin or self.name, "origin_server_ts": now_ms(), "pdus": list(pdus), "edus": list(edus)}
        target = path("v1/send/{}", transaction_id or unique("txn"))
        status, answer = self.send(server, "PUT", target, body)
        assert status == 200, answer
        return answer["pdus"]

    # -- answers -------------------------------------------------------------------------------------------------

    def answer_to(self, request):
        target = request.target.split("?")[0]
        if target in self.answers or not target.startswith(FEDERATION):
            return super().answer_to(request)
        version, name, *values = map(urllib.parse.unquote, target.removeprefix(FEDERATION).split("/"))
        query = dict(urllib.parse.parse_qsl(request.target.partition("?")[2]))
        body = json.loads(request.body) if request.body else {}
        answer = getattr(self, f"answer_{name}", None)
        return answer(values, query, body) if answer else super().answer_to(request)

    def answer_send(self, values, _query, body):
        with self.came:
            self.transactions.append(body)
            for event in body["pdus"]:
                self.know(event)
            self.came.notify_all()
        return 200, {"pdus": {}}

    def until(self, condition):
        """Waits for what others send until `condition` holds."""
        with self.came:
            assert self.came.wait_for(condition, SECONDS_MAX), self.transactions[-3:]

    @property
    def pdus(self):
        return [event for transaction in self.transactions for event in transaction["pdus"]]

    def answer_make_join(self, values, _query, _body):
        return self.template(*values, "join")

    def answer_make_leave(self, values, _query, _body):
        return self.template(*values, "leave")

    def answer_make_knock(self, values, _query, _body):
        return self.template(*values, "knock")

    def template(self, room_id, user_id, membership):
        copy = self.copies[room_id]
        event = {
            "room_id": room_id,
            "type": "m.room.member",
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": membership},
            "prev_events": list(copy.ends),
            "auth_events": copy.allowing("m.room.member", user_id, user_id),
            "depth": copy.depth + 1,
            "origin_server_ts": now_ms(),
        }
        return 200, {"room_version": VERSION, "event": event}

    def answer_send_join(self, values, _query, body):
        copy = self.copies[values[0]]
        answer = self.told(copy.state)
        self.take(copy, body)
        return 200, {"origin": self.name, "event": body, "members_omitted": False, **answer}

    def take(self, copy, event):
        self.know(event)
        self.before[id_of(event)] = dict(copy.state)
        self.place(copy, event)

    def answer_send_leave(self, values, _query, body):
        self.take(self.copies[values[0]], body)
        return 200, {}

    def answer_send_knock(self, values, _query, body):
        self.take(self.copies[values[0]], body)
        return 200, {"knock_room_state": []}

    def answer_invite(self, _values, _query, body):
        event = body["event"]
        signatures = signed(redacted(event), self.name, self.key)["signatures"]
        return 200, {"event": {**event, "signatures": signatures}}

    def told(self, state):
        """A state and what allows it, as it is told."""
        state_ids = list(state.values())
        chain, next = {}, list(state_ids)
        while next:
            for event_id in self.events[next.pop()]["auth_events"]:
                if event_id not in chain:
                    chain[event_id] = self.events[event_id]
                    next.append(event_id)
        return {"state": [self.events[event_id] for event_id in state_ids], "auth_chain": list(chain.values())}

    def answer_state(self, _values, query, _body):
        told = self.told(self.before[query["event_id"]])
        return 200, {"pdus": told["state"], "auth_chain": told["auth_chain"]}

    def answer_state_ids(self, _values, query, _body):
        told = self.told(self.before[query["event_id"]])
        ids = {name: [id_of(event) for event in events] for name, events in told.items()}
        return 200, {"pdu_ids": ids["state"], "auth_chain_ids": ids["auth_chain"]}

    def answer_event(self, values, _query, _body):
        if values[0] not in self.events:
            return 404, {"errcode": "M_NOT_FOUND", "error": "There is no such event"}
        return 200, {"origin": self.name, "origin_server_ts": now_ms(), "pdus": [self.events[values[0]]]}

    def answer_event_auth(self, values, _query, _body):
        chain = self.told({"": values[1]})["auth_chain"]
        return 200, {"auth_chain": chain}

    def answer_get_missing_events(self, _values, _query, body):
        found, next = {}, list(body["latest_events"])
        while next and len(found) < body.get("limit", 10):
            for event_id in self.events.get(next.pop(0), {"prev_events": []})["prev_events"]:
                if event_id not in body["earliest_events"] and event_id in self.events and event_id not in found:
                    found[event_id] = self.events[event_id]
                    next.append(event_id)
        return 200, {"events": list(found.values())[::-1]}

    def answer_backfill(self, _values, query, _body):
        return 200, {"origin": self.name, "origin_server_ts": now_ms(), "pdus": []}
