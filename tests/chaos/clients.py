"""Users whose clients sync all the time, fill gaps in timelines and add up state; what they are told is in their watchers."""

import asyncio
import json

from chaos.ledger import Device, Watcher
from harness.client import PASSWORD, address

# Small ones make gaps.
TIMELINE_LIMITS = [10, 1000, 1000, 50]
PAUSE_SECONDS = 0.5
POLL_MS = 4000
PAGES_MAX = 300
TRIES_MAX = 12
# No answer, and those of servers that wait for others or are about to go.
PASSING = (0, 502, 503, 504)


class User:
    def __init__(self, world, host, name, number):
        self.world, self.host, self.name, self.number = world, host, name, number
        self.id, self.token, self.device, self.since, self.news = None, None, None, None, 0
        # Half of them ask for the state after the timeline, which Synapse does not have under this name.
        self.state_after = host.ours and number % 2 == 1
        # A login, and what it is called in the ledger, for each device that is there; the first one syncs all the time.
        self.watcher, self.logins = None, []

    def __str__(self):
        return self.name

    async def call(self, method, template, *values, body=None, query=None, token=None, **more):
        body = {} if body is None and method in ("PUT", "POST") else body
        path = address(template, *values)
        return await self.world.request(self.host, method, path, token or self.token, body, query, **more)

    async def persist(self, method, template, *values, **more):
        """Asks again until the server has answered. For requests that may come twice."""
        for _ in range(TRIES_MAX):
            status, answer = await self.call(method, template, *values, **more)
            if status not in PASSING:
                break
            await asyncio.sleep(1)
        return status, answer

    async def register(self):
        body = {"username": self.name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        status, answer = await self.call("POST", "register", body=body)
        assert status == 200, answer
        self.id, self.token, self.device = answer["user_id"], answer["access_token"], answer["device_id"]
        self.watcher = Watcher(self.id, self.host.name, self.host.ours, self.state_after)
        return self.note_login(answer, self.watcher.messages)

    def note_login(self, answer, messages):
        device = Device(self.id, answer["device_id"], self.host.name, self.host.ours, self.world.report.now(), messages=messages)
        self.logins.append((answer["access_token"], device))
        return device

    async def log_in(self):
        """Another device, or None."""
        body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": self.id}, "password": PASSWORD}
        status, answer = await self.call("POST", "login", body=body)
        return self.note_login(answer, []) if status == 200 else None

    def membership(self, room):
        return self.watcher.membership.get(room)

    async def state(self, room):
        status, events = await self.persist("GET", "rooms/{roomId}/state", room)
        return {(event["type"], event["state_key"]): event for event in events} if status == 200 else None

    async def sync_on(self):
        """Syncs until it is cancelled."""
        filter = json.dumps({"room": {"timeline": {"limit": TIMELINE_LIMITS[self.number % 4]}}})
        while True:
            query = {"timeout": POLL_MS, "filter": filter}
            query |= {"since": self.since} if self.since else {}
            query |= {"use_state_after": "true"} if self.state_after else {}
            status, answer = await self.call("GET", "sync", query=query)
            if status != 200:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            await self.take(answer)
            self.since = answer["next_batch"]

    async def take(self, answer):
        messages = answer.get("to_device", {}).get("events", [])
        self.watcher.messages += [event["content"].get("marker") for event in messages]
        changed = answer.get("device_lists", {}).get("changed", [])
        self.watcher.changed.update(dict.fromkeys(changed, self.world.report.now()))
        rooms = answer.get("rooms", {})
        self.news += len(messages) + len(rooms.get("leave", {})) + len(rooms.get("invite", {}))
        for room, joined in rooms.get("join", {}).items():
            await self.take_joined(room, joined)
        for room, left in rooms.get("leave", {}).items():
            self.take_left(room, left)
        for membership in ("invite", "knock"):
            for room in rooms.get(membership, {}):
                self.end_stretch(room)
                self.watcher.membership[room] = membership

    def end_stretch(self, room):
        if self.membership(room) == "join":
            self.watcher.stretches[room][-1][1] = self.world.report.now()

    async def take_joined(self, room, joined):
        watcher, timeline = self.watcher, joined.get("timeline", {})
        comes = watcher.membership.get(room) != "join"
        if comes:
            watcher.membership[room], watcher.state[room] = "join", {}
            watcher.stretches.setdefault(room, []).append([self.world.report.now(), None])
        elif timeline.get("limited"):
            await self.fill(room, timeline["prev_batch"])
        events = timeline.get("events", [])
        self.take_own(events)
        self.news += len(events)
        watcher.timeline.setdefault(room, []).extend(event["event_id"] for event in events)
        state = joined.get("state_after", joined.get("state", {})).get("events", [])
        state = state if "state_after" in joined else state + [event for event in events if "state_key" in event]
        watcher.state[room].update({(event["type"], event["state_key"]): event["event_id"] for event in state})
        self.take_receipts(room, joined)

    def take_own(self, events):
        self.watcher.own |= {event["event_id"] for event in events if event["sender"] == self.id}

    def take_receipts(self, room, joined):
        for event in joined.get("ephemeral", {}).get("events", []):
            for event_id, kinds in event["content"].items() if event["type"] == "m.receipt" else []:
                self.watcher.receipts.update({(room, user): event_id for user in kinds.get("m.read", {})})

    def take_left(self, room, left):
        watcher = self.watcher
        if watcher.membership.get(room) == "join":
            self.end_stretch(room)
            events = left.get("timeline", {}).get("events", [])
            self.take_own(events)
            watcher.timeline.setdefault(room, []).extend(event["event_id"] for event in events)
        watcher.membership[room] = "leave"

    async def fill(self, room, start):
        """Pages back from where the timeline begins to where the last sync ended."""
        events = await self.pages(room, {"from": start, "to": self.since, "limit": 50})
        self.take_own(events)
        self.watcher.filled.setdefault(room, set()).update(event["event_id"] for event in events)

    async def pages(self, room, query):
        found = []
        for _ in range(PAGES_MAX):
            status, page = await self.persist("GET", "rooms/{roomId}/messages", room, query={"dir": "b", **query})
            if status != 200:
                break
            found += page["chunk"]
            # Synapse says of the last page that there are more, up to where it was asked to go.
            if "end" not in page or page["end"] == query.get("from"):
                break
            query = {**query, "from": page["end"]}
        return found
