"""A hand-written server whose users are in rooms of the server under test, and that keeps what it is sent."""

import hashlib
import json
import threading
import urllib.parse

from harness.client import unique
from harness.peer import Peer, base64_of, canonical, now_ms

SEND = "/_matrix/federation/v1/send/"
SECONDS_MAX = 60
# What redaction leaves of an event since room version 11, besides what it leaves of the content.
KEPT = "type room_id sender state_key content hashes depth prev_events auth_events origin_server_ts".split()


def escaped(text):
    return urllib.parse.quote(text, safe="")


def redacted(event):
    """What is signed of a message or a membership event, as far as these tests make them."""
    bare = {name: event[name] for name in KEPT if name in event}
    is_member = event["type"] == "m.room.member"
    content = {"membership": event["content"]["membership"]} if is_member else {}
    return {**bare, "content": content}


def id_of(event):
    digest = hashlib.sha256(canonical(redacted(event))).digest()
    return "$" + base64_of(digest).replace("+", "-").replace("/", "_")


class Resident(Peer):
    """A peer whose users come into rooms, and that keeps what it is sent."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.is_failing = False
        self.transactions = []
        self.tries = []
        self.came = threading.Condition()

    def answer_to(self, request):
        if not request.target.startswith(SEND):
            return super().answer_to(request)
        transaction = json.loads(request.body)
        with self.came:
            self.tries.append((request.target.removeprefix(SEND), transaction))
            if self.is_failing:
                self.came.notify_all()
                return 502, {"errcode": "M_UNKNOWN", "error": "not now"}
            self.transactions.append(self.tries[-1])
            self.came.notify_all()
        return 200, {"pdus": {}}

    def until(self, condition):
        """Waits until `condition` holds of the peer."""
        with self.came:
            assert self.came.wait_for(lambda: condition(self), SECONDS_MAX), self.tries[-3:]

    def template(self, server, user_id, room_id):
        """An event that would bring a user into a room now: it says what events follow and are allowed by."""
        versions = "&".join(f"ver={version}" for version in range(1, 13))
        target = f"/_matrix/federation/v1/make_join/{escaped(room_id)}/{escaped(user_id)}?{versions}"
        status, made = self.send(server, "GET", target)
        assert status == 200, made
        return made["event"]

    def finish(self, event):
        """The event with its hash and this server's signature."""
        kept = "auth_events content depth origin_server_ts prev_events room_id sender state_key type".split()
        event = {name: event[name] for name in kept if name in event}
        event["hashes"] = {"sha256": base64_of(hashlib.sha256(canonical(event)).digest())}
        return self.with_signature(event, self.key)

    def with_signature(self, event, key):
        """The event with one more signature of this server."""
        keys = {**event.get("signatures", {}).get(self.name, {}), key.id: key.signature(redacted(event))}
        return {**event, "signatures": {**event.get("signatures", {}), self.name: keys}}

    def make_join(self, server, user_id, room_id, template=None):
        """A join of a user, which is not handed in, and its id; made from another's template, if one is named."""
        event = self.template(server, template or user_id, room_id)
        event |= {"sender": user_id, "state_key": user_id, "content": {"membership": "join"}}
        event = self.finish({**event, "origin_server_ts": now_ms()})
        return id_of(event), event

    def try_join(self, server, user_id, room_id, template=None):
        """Has a user come into a room by way of the server. Answers status and body."""
        event_id, event = self.make_join(server, user_id, room_id, template)
        return self.send(server, "PUT", f"/_matrix/federation/v2/send_join/{escaped(room_id)}/{event_id}", event)

    def join(self, server, user_id, room_id):
        """Brings a user into a room by way of the server."""
        status, joined = self.try_join(server, user_id, room_id)
        assert status == 200, joined

    def message(self, server, user_id, room_id, body):
        """A message of a user who is in a room of version 11, behind all that is there."""
        event = self.template(server, user_id, room_id)
        auth_events = []
        for event_id in event["auth_events"]:
            (pdu,) = self.send(server, "GET", f"/_matrix/federation/v1/event/{escaped(event_id)}")[1]["pdus"]
            if pdu["type"] != "m.room.join_rules":
                auth_events.append(event_id)
        del event["state_key"]
        content = {"msgtype": "m.text", "body": body}
        event |= {"type": "m.room.message", "content": content, "auth_events": auth_events}
        return self.finish({**event, "origin_server_ts": now_ms()})

    def transact(self, server, *pdus, edus=()):
        """Sends a transaction; answers what became of each event."""
        content = {"origin": self.name, "origin_server_ts": now_ms(), "pdus": list(pdus), "edus": list(edus)}
        status, answer = self.send(server, "PUT", SEND + unique("txn"), content)
        assert status == 200, answer
        return answer["pdus"]

    @property
    def pdus(self):
        """The events that came, in order."""
        return [event for _, transaction in self.transactions for event in transaction["pdus"]]

    @property
    def bodies(self):
        """The texts of the messages that came, in order."""
        return [event["content"]["body"] for event in self.pdus if event["type"] == "m.room.message"]

    def edus(self, kind):
        edus = [edu for _, transaction in self.transactions for edu in transaction.get("edus", [])]
        return [edu["content"] for edu in edus if edu["edu_type"] == kind]
