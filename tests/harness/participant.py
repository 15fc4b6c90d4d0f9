"""A hand-written server that is in rooms: it makes events, joins rooms of others, has rooms of its own, tells what it is
asked of them, and keeps what it is sent.

It says the truth unless a test makes it lie: by an answer of its own for a path (`answers`) or a kind of question
(`answer_…`), or by an event that it makes as the test wants it.
"""

import json
import threading
import urllib.parse

from harness.client import unique
from harness.events import KEPT, Copy, hashed, id_of, redacted
from harness.peer import Peer, now_ms, signed

VERSION = "11"
SPOKEN = "ver=11&ver=12"
FEDERATION = "/_matrix/federation/"
# What version 1 answers in an array, behind the status.
IN_ARRAYS = {"invite", "send_join", "send_leave"}
UNKNOWN = 404, {"errcode": "M_NOT_FOUND", "error": "It is not known here"}
# A loaded machine may take its time.
SECONDS_MAX = 60


def path(template, *values):
    """A target below the server-server API's path, its values escaped."""
    return FEDERATION + template.format(*(urllib.parse.quote(value, safe="") for value in values))


class Participant(Peer):
    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        # All events that it can tell of, by their ids; the state before those of its own, and its rooms.
        self.events, self.before, self.copies = {}, {}, {}
        # Transactions with their ids: all that came, and those that it took.
        self.tries, self.transactions, self.is_failing = [], [], False
        # Whether it knows the second versions of endpoints.
        self.knows_v2 = True
        self.came = threading.Condition()

    def user(self, word="someone"):
        return f"@{word}:{self.name}"

    # -- events --------------------------------------------------------------------------------------------------

    def sign(self, event, key=None):
        """The event with its hash and one more signature, which is of its redacted form."""
        event = hashed(event)
        return {**event, "signatures": signed(redacted(event), self.name, key or self.key)["signatures"]}

    def event(self, copy, type, content, sender=None, state_key=None, key=None, **more):
        """An event that would come next in the room. `more` replaces what it says."""
        sender = sender or copy.user or self.user()
        event = {
            "room_id": copy.room_id,
            "type": type,
            "sender": sender,
            "content": content,
            "prev_events": list(copy.ends),
            "auth_events": copy.allowing(type, sender, state_key, content),
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

    def share(self, other):
        """Has whatever another server has from now on, and the other one what it has."""
        self.events, self.before = other.events, other.before

    def know(self, *events):
        self.events |= {id_of(event): event for event in events}

    def place(self, copy, event):
        """Lets the room go on from the event."""
        if "state_key" in event:
            copy.state[event["type"], event["state_key"]] = id_of(event)
        copy.ends, copy.depth = [id_of(event)], event["depth"]
        return event

    def next(self, copy, type, content, **more):
        return self.place(copy, self.event(copy, type, content, **more))

    def come(self, copy, user, **more):
        """Lets a user be in the room, and tells nobody of it."""
        return self.next(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user, **more)

    # -- what it asks for and sends ------------------------------------------------------------------------------

    def create(self, join_rule="public", user=None, version=VERSION):
        """A room of its own; its create event says `version`, whatever its events are."""
        user = user or self.user()
        copy = Copy(f"!{unique('room')}:{self.name}", {}, [], 0, user)
        self.next(copy, "m.room.create", {"room_version": version} if version else {}, state_key="")
        self.next(copy, "m.room.member", {"membership": "join"}, state_key=user)
        self.next(copy, "m.room.power_levels", {"users": {user: 100}}, state_key="")
        self.next(copy, "m.room.join_rules", {"join_rule": join_rule}, state_key="")
        self.next(copy, "m.room.history_visibility", {"history_visibility": "shared"}, state_key="")
        self.copies[copy.room_id] = copy
        return copy

    def ask(self, server, method, target, content=None):
        status, answer = self.send(server, method, target, content)
        assert status == 200, answer
        return answer

    def begin(self, version="12"):
        """The create event of a room that is called after it, as all are since version 12."""
        create = {"type": "m.room.create", "state_key": "", "sender": self.user(), "content": {"room_version": version}}
        return self.sign({**create, "prev_events": [], "auth_events": [], "depth": 1, "origin_server_ts": 1})

    def make_join(self, server, room_id, user=None, like=None):
        """A join that is not handed in. The template is asked for `like` another user, if one is named."""
        user = user or self.user()
        target = path("v1/make_join/{}/{}?" + SPOKEN, room_id, like or user)
        template = self.ask(server, "GET", target)["event"]
        content = {**template["content"], "membership": "join"}
        template = {name: template[name] for name in KEPT if name in template}
        return self.sign({**template, "sender": user, "state_key": user, "content": content})

    def send_join(self, server, event, query=""):
        """Hands a join in. Answers with status and answer."""
        target = path("v2/send_join/{}/{}", event["room_id"], id_of(event)) + query
        return self.send(server, "PUT", target, event)

    def join(self, server, room_id, user=None):
        """Brings a user into a room by way of the server that has it. Answers with what it has of the room then."""
        event = self.make_join(server, room_id, user)
        status, joined = self.send_join(server, event)
        assert status == 200, joined
        copy = Copy(room_id, self.learn(joined), event["prev_events"], event["depth"] - 1, event["sender"])
        self.take(copy, event)
        self.copies[room_id] = copy
        return copy

    def learn(self, told, state="state"):
        """Keeps a state and what allows it, as another server tells it. Answers with the state."""
        self.know(*told["auth_chain"], *told[state])
        return {(event["type"], event["state_key"]): id_of(event) for event in told[state]}

    def catch_up(self, server, copy):
        """Lets the copy be as the server has the room now."""
        join = self.make_join(server, copy.room_id, copy.user)
        copy.ends, copy.depth = join["prev_events"], join["depth"] - 1
        for event_id in copy.ends:
            self.know(*self.ask(server, "GET", path("v1/event/{}", event_id))["pdus"])
            told = self.ask(server, "GET", path("v1/state/{}?event_id={}", copy.room_id, event_id))
            self.before[event_id] = self.learn(told, "pdus")
            copy.state |= self.before[event_id]
        for event_id in copy.ends:
            if "state_key" in (event := self.events[event_id]):
                copy.state[event["type"], event["state_key"]] = event_id
        return copy

    def leave(self, server, copy):
        """Takes the copy's user out of the room."""
        event = self.next(copy, "m.room.member", {"membership": "leave"}, state_key=copy.user)
        assert self.transact(server, [event]) == {id_of(event): {}}

    def invite(self, server, copy, user_id, **more):
        """Invites a user of the server. Answers with status and answer."""
        event = self.event(copy, "m.room.member", {"membership": "invite"}, state_key=user_id, **more)
        return self.send_invite(server, copy.room_id, event)

    def send_invite(self, server, room_id, event, event_id=None, **more):
        body = {"room_version": VERSION, "event": event, "invite_room_state": [], **more}
        return self.send(server, "PUT", path("v2/invite/{}/{}", room_id, event_id or id_of(event)), body)

    def old_invite(self, room_id, user_id):
        """An invite as it was before version 3 of rooms, where events have an id of their own."""
        return self.sign(
            {
                "event_id": f"${unique('event')}:{self.name}",
                "room_id": room_id,
                "type": "m.room.member",
                "sender": self.user(),
                "state_key": user_id,
                "content": {"membership": "invite", "displayname": "A guest"},
                "prev_events": [],
                "auth_events": [],
                "depth": 5,
                "origin": self.name,
                "origin_server_ts": now_ms(),
            }
        )

    def transact(self, server, pdus=(), edus=(), origin=None, transaction_id=None):
        """Sends a transaction. Answers with what was answered to each event."""
        body = {"origin": origin or self.name, "origin_server_ts": now_ms(), "pdus": list(pdus), "edus": list(edus)}
        return self.ask(server, "PUT", path("v1/send/{}", transaction_id or unique("txn")), body)["pdus"]

    # -- what it was sent ----------------------------------------------------------------------------------------

    def until(self, condition, seconds=SECONDS_MAX):
        """Waits for what others send until `condition` holds."""
        with self.came:
            assert self.came.wait_for(condition, seconds), self.tries[-3:]

    @property
    def pdus(self):
        """The events that came, in order."""
        return [event for _, transaction in self.transactions for event in transaction["pdus"]]

    @property
    def bodies(self):
        """The texts of the messages that came, in order."""
        return [event["content"]["body"] for event in self.pdus if event["type"] == "m.room.message"]

    def edus(self, type):
        """The contents of what came of that type beside events, in order."""
        edus = [edu for _, transaction in self.transactions for edu in transaction.get("edus", [])]
        return [edu["content"] for edu in edus if edu["edu_type"] == type]

    def versions_asked(self, name):
        """The versions of an endpoint in which it was asked, in order."""
        paths = [request.target.partition("?")[0].removeprefix(FEDERATION).split("/") for request in self.requests]
        return [version for version, *rest in paths if rest[:1] == [name]]

    def states_asked(self, *events):
        """The questions for the state before any of the events."""
        targets = [request.target for request in self.requests if "/v1/state" in request.target]
        return [target for target in targets if any(id_of(event)[1:] in target for event in events)]

    # -- what it answers -----------------------------------------------------------------------------------------

    def answer_to(self, request):
        target, _, query = request.target.partition("?")
        if target in self.answers or not target.startswith(FEDERATION):
            return super().answer_to(request)
        version, name, *values = map(urllib.parse.unquote, target.removeprefix(FEDERATION).split("/"))
        answer = getattr(self, f"answer_{name}", None)
        if answer is None or version == "v2" and not self.knows_v2:
            return super().answer_to(request)
        try:
            status, content, *more = answer(values, self.parameters(query), json.loads(request.body or b"{}"))
        except KeyError:
            return UNKNOWN
        is_in_array = version == "v1" and name in IN_ARRAYS and status == 200
        return status, [status, content] if is_in_array else content, *more

    def parameters(self, query):
        """The parameters of a question; `v` is the only one that may come several times."""
        found = urllib.parse.parse_qs(query)
        return {name: values if name == "v" else values[-1] for name, values in found.items()}

    def answer_send(self, values, _query, body):
        with self.came:
            is_taken = not self.is_failing
            self.tries.append((values[0], body))
            if is_taken:
                self.transactions.append((values[0], body))
                self.know(*body["pdus"])
            self.came.notify_all()
        return (200, {"pdus": {}}) if is_taken else (502, {"errcode": "M_UNKNOWN", "error": "Not now"})

    def answer_make_join(self, values, _query, _body):
        return self.template(*values, "join")

    def answer_make_leave(self, values, _query, _body):
        return self.template(*values, "leave")

    def answer_make_knock(self, values, _query, _body):
        return self.template(*values, "knock")

    def template(self, room_id, user_id, membership):
        copy, content = self.copies[room_id], {"membership": membership}
        event = {
            "room_id": room_id,
            "type": "m.room.member",
            "sender": user_id,
            "state_key": user_id,
            "content": content,
            "prev_events": list(copy.ends),
            "auth_events": copy.allowing("m.room.member", user_id, user_id, content),
            "depth": copy.depth + 1,
            "origin_server_ts": now_ms(),
        }
        return 200, {"room_version": VERSION, "event": event}

    def take(self, copy, event):
        self.know(event)
        self.before[id_of(event)] = dict(copy.state)
        self.place(copy, event)

    def answer_send_join(self, values, _query, body):
        copy = self.copies[values[0]]
        answer = self.told(copy.state)
        self.take(copy, body)
        return 200, {"origin": self.name, "event": body, "members_omitted": False, **answer}

    def answer_send_leave(self, values, _query, body):
        self.take(self.copies[values[0]], body)
        return 200, {}

    def answer_send_knock(self, values, _query, body):
        self.take(self.copies[values[0]], body)
        return 200, {"knock_room_state": []}

    def answer_invite(self, _values, _query, body):
        # The body of version 1 is the event.
        event = body.get("event", body)
        return 200, {"event": {**event, "signatures": signed(redacted(event), self.name, self.key)["signatures"]}}

    def told(self, state):
        """A state and what allows it, as it is told."""
        chain, left = {}, list(state.values())
        while left:
            for event_id in self.events[left.pop()]["auth_events"]:
                if event_id not in chain:
                    chain[event_id] = self.events[event_id]
                    left.append(event_id)
        return {"state": [self.events[event_id] for event_id in state.values()], "auth_chain": list(chain.values())}

    def answer_state(self, _values, query, _body):
        told = self.told(self.before[query["event_id"]])
        return 200, {"pdus": told["state"], "auth_chain": told["auth_chain"]}

    def answer_state_ids(self, _values, query, _body):
        told = self.told(self.before[query["event_id"]])
        ids = {name: [id_of(event) for event in events] for name, events in told.items()}
        return 200, {"pdu_ids": ids["state"], "auth_chain_ids": ids["auth_chain"]}

    def enveloped(self, events):
        return 200, {"origin": self.name, "origin_server_ts": now_ms(), "pdus": events}

    def answer_event(self, values, _query, _body):
        return self.enveloped([self.events[values[0]]])

    def answer_event_auth(self, values, _query, _body):
        return 200, {"auth_chain": self.told({"": values[1]})["auth_chain"]}

    def answer_get_missing_events(self, _values, _query, body):
        stops = set(body["earliest_events"])
        latest = [self.events[event_id] for event_id in body["latest_events"] if event_id in self.events]
        starts = [event_id for event in latest for event_id in event["prev_events"]]
        found = self.back_from(starts, body.get("limit", 10), stops)
        return 200, {"events": list(found.values())[::-1]}

    def answer_backfill(self, _values, query, _body):
        found = self.back_from(query["v"], int(query["limit"]))
        return self.enveloped(list(found.values()))

    def back_from(self, starts, limit, stops=()):
        """Events that it knows, from those named backwards, the latest first."""
        found, left = {}, list(starts)
        while left and len(found) < limit:
            event_id = left.pop(0)
            if event_id in self.events and event_id not in found and event_id not in stops:
                found[event_id] = self.events[event_id]
                left += found[event_id]["prev_events"]
        return found

    def answer_timestamp_to_event(self, _values, query, _body):
        ts, is_forwards = int(query["ts"]), query["dir"] == "f"
        times = [(self.events[event_id]["origin_server_ts"], event_id) for event_id in self.before]
        there = [row for row in times if (row[0] >= ts if is_forwards else row[0] <= ts)]
        if not there:
            return UNKNOWN
        time, event_id = min(there) if is_forwards else max(there)
        return 200, {"event_id": event_id, "origin_server_ts": time}
