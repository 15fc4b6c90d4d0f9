"""A peer whose users are in rooms: it makes events by hand, tells of those that it knows, and keeps what it is sent."""

import hashlib
import json
import threading
import urllib.parse

from harness.peer import Peer, base64_of, canonical, now_ms, signed

FEDERATION = "/_matrix/federation/"
SECONDS_MAX = 60
# What a redaction leaves of an event, from room version 11 on.
KEPT = "auth_events content depth hashes origin_server_ts prev_events room_id sender signatures state_key type".split()
LEVELS = "ban events events_default invite kick redact state_default users users_default".split()
CONTENT_KEPT = {
    "m.room.member": ["membership", "join_authorised_via_users_server"],
    "m.room.join_rules": ["join_rule", "allow"],
    "m.room.power_levels": LEVELS,
    "m.room.history_visibility": ["history_visibility"],
}


def redacted(event):
    """The event as it is signed."""
    kept = {name: event[name] for name in KEPT if name in event}
    names = event["content"] if event["type"] == "m.room.create" else CONTENT_KEPT.get(event["type"], [])
    return {**kept, "content": {name: value for name, value in event["content"].items() if name in names}}


def id_of(event):
    """The id of an event, from room version 4 on."""
    bare = {name: value for name, value in redacted(event).items() if name != "signatures"}
    return "$" + base64_of(hashlib.sha256(canonical(bare)).digest()).replace("+", "-").replace("/", "_")


def path(template, *values):
    """A target with its values escaped, below the server-server API's path."""
    return FEDERATION + template.format(*(urllib.parse.quote(value, safe="") for value in values))


class Member(Peer):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        # Events that it knows and tells of, by their ids, oldest first; of each the ids of the state before it.
        self.events, self.states = {}, {}
        self.transactions, self.came = [], threading.Condition()

    # -- what it does ----------------------------------------------------------------------------------------------

    def finish(self, event):
        """An event with its hash and the peer's signature."""
        event["hashes"] = {"sha256": base64_of(hashlib.sha256(canonical(event)).digest())}
        return {**event, "signatures": signed(redacted(event), self.name, self.key)["signatures"]}

    def join(self, server, user_id, room_id):
        """Brings a user into a room by way of the server. Answers the event's id."""
        versions = "&".join(f"ver={version}" for version in range(1, 13))
        status, made = self.send(server, "GET", path("v1/make_join/{}/{}", room_id, user_id) + "?" + versions)
        assert status == 200, made
        event = {**made["event"], "content": {"membership": "join"}, "origin_server_ts": now_ms()}
        event = self.finish({name: event[name] for name in KEPT if name in event and name not in ("hashes", "signatures")})
        event_id = id_of(event)
        status, joined = self.send(server, "PUT", path("v2/send_join/{}/{}", room_id, event_id), event)
        assert status == 200, joined
        self.state = {(known["type"], known["state_key"]): id_of(known) for known in joined["state"]}
        self.state["m.room.member", user_id] = event_id
        self.events |= {id_of(known): known for known in [*joined["state"], *joined["auth_chain"]]}
        self.events[event_id] = event
        self.last = event_id
        return event_id

    def leave(self, server, user_id, room_id):
        """Takes a user out of a room."""
        content, more = {"membership": "leave"}, {"state_key": user_id}
        event_id = self.make(room_id, user_id, content, "m.room.member", **more)
        assert self.transmit(server, [self.events[event_id]]) == {event_id: {}}

    def make(self, room_id, sender, content, kind="m.room.message", prev=None, **more):
        """An event after the last one, allowed by the state as it was when the user joined."""
        needed = [("m.room.power_levels", ""), ("m.room.member", sender)]
        if ":" in room_id:
            needed.append(("m.room.create", ""))
        prev = prev or [self.last]
        event = {
            "auth_events": [self.state[key] for key in needed if key in self.state],
            "content": content,
            "depth": max(self.events[known]["depth"] for known in prev) + 1,
            "origin_server_ts": now_ms(),
            "prev_events": prev,
            "room_id": room_id,
            "sender": sender,
            "type": kind,
            **more,
        }
        event = self.finish(event)
        self.last = id_of(event)
        self.events[self.last] = event
        self.states[self.last] = list(self.state.values())
        return self.last

    def transmit(self, server, pdus=(), edus=(), txn=None):
        """Sends a transaction, and answers what came of its events."""
        content = {"origin": self.name, "origin_server_ts": now_ms(), "pdus": list(pdus), "edus": list(edus)}
        txn = txn or hashlib.sha256(canonical(content)).hexdigest()
        status, answer = self.send(server, "PUT", path("v1/send/{}", txn), content)
        assert status == 200, answer
        return answer["pdus"]

    # -- what it answers -------------------------------------------------------------------------------------------

    def answer_to(self, request):
        target = urllib.parse.urlsplit(request.target)
        version, *place = [urllib.parse.unquote(part) for part in target.path.removeprefix(FEDERATION).split("/")]
        query = urllib.parse.parse_qs(target.query)
        answer = getattr(self, f"answer_{place[0]}", None) if version == "v1" and place else None
        if target.path in self.answers or answer is None:
            return super().answer_to(request)
        found = answer(request, query, *place[1:])
        return (404, {"errcode": "M_NOT_FOUND", "error": "It is not known"}) if found is None else (200, found)

    def enveloped(self, event_ids):
        pdus = [self.events[event_id] for event_id in event_ids]
        return {"origin": self.name, "origin_server_ts": now_ms(), "pdus": pdus}

    def answer_send(self, request, query, txn):
        with self.came:
            self.transactions.append(json.loads(request.body))
            self.came.notify_all()
        return {"pdus": {}}

    def answer_event(self, request, query, event_id):
        return self.enveloped([event_id]) if event_id in self.events else None

    def answer_state_ids(self, request, query, room_id):
        known = self.states.get(query["event_id"][0])
        return None if known is None else {"pdu_ids": known, "auth_chain_ids": known}

    def answer_get_missing_events(self, request, query, room_id):
        return {"events": []}

    def answer_backfill(self, request, query, room_id):
        found, left = [], list(query["v"])
        while left and len(found) < int(query["limit"][0]):
            event_id = left.pop(0)
            if event_id in self.states and event_id not in found:
                found.append(event_id)
                left += self.events[event_id]["prev_events"]
        return self.enveloped(found)

    def answer_timestamp_to_event(self, request, query, room_id):
        ts, forwards = int(query["ts"][0]), query["dir"] == ["f"]
        times = [(self.events[event_id]["origin_server_ts"], event_id) for event_id in self.states]
        there = [row for row in times if (row[0] >= ts if forwards else row[0] <= ts)]
        if not there:
            return None
        time, event_id = min(there) if forwards else max(there)
        return {"event_id": event_id, "origin_server_ts": time}

    # -- what it was sent ------------------------------------------------------------------------------------------

    def until(self, condition, seconds=SECONDS_MAX):
        """Waits until `condition` holds of the peer."""
        with self.came:
            assert self.came.wait_for(lambda: condition(self), seconds), self.transactions[-3:]

    @property
    def bodies(self):
        """The texts of the messages that came, in order."""
        events = [event for transaction in self.transactions for event in transaction["pdus"]]
        return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]

    def edus(self, kind):
        """The contents of what it was sent of that kind."""
        edus = [edu for transaction in self.transactions for edu in transaction.get("edus", [])]
        return [edu["content"] for edu in edus if edu["edu_type"] == kind]
