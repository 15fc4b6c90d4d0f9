"""`python -m chaos.play`: one run, by its seed. `./x chaos --help` says how.

The seed names the acts, their order and what they choose from what is there; when servers answer is theirs, so two runs of a
seed are alike and not the same.
"""

import argparse
import asyncio
import os
import pathlib
import random
import sys
import tempfile
import time
import traceback

from chaos import acts, devices_at_rest, rest
from chaos.clients import User
from chaos.comparisons import compare
from chaos.finding import Finding
from chaos.ledger import Ledger, Sent
from chaos.report import Report
from chaos.world import World

USERS_EACH, ROOMS = 4, 6
# Acts make more; each of them is to have something going on in it.
ROOMS_MAX = 11
# How many acts are under way at once, and how long one may take.
ACTS_MAX, ACT_SECONDS_MAX = 8, 240
VISIBILITIES = ["joined", "invited", "shared", "shared", "world_readable"]


class Play:
    def __init__(self, world, report, options):
        self.world, self.report, self.options = world, report, options
        self.chance, self.ledger = random.Random(options.seed), Ledger()
        self.rooms, self.versions, self.users, self.names = [], {}, [], 0
        # At rest: room → server → type → content, of some state that servers are asked for.
        self.contents, self.rooms_max = {}, ROOMS_MAX

    def new_name(self, letter):
        self.names += 1
        return f"{letter}{self.names}"

    def member(self, chance, strong=False):
        """Somebody who is in a room, one with power if that is wanted, and the room; nobody's room is None."""
        users = [user for user in self.users if user.number == 0 or not strong]
        for user in chance.sample(users, len(users)):
            rooms = [room for room in self.rooms if user.membership(room) == "join"]
            if rooms:
                return user, chance.choice(rooms)
        return self.users[0], None

    async def begin(self):
        """Users, and rooms of all versions that some of them are in. The first of each server have power everywhere."""
        for host in self.world.hosts:
            self.users += [User(self.world, host, f"u{host.index}{number}", number) for number in range(USERS_EACH)]
        for user in self.users:
            self.ledger.devices.append(await user.register())
            self.ledger.watchers.append(user.watcher)
        self.syncing = [asyncio.create_task(user.sync_on()) for user in self.users]
        for _ in range(ROOMS):
            assert await self.create_room(self.chance), "nobody can make a room"

    async def create_room(self, chance, condition=None):
        """A room of any version, or one for members of another room alone."""
        creator, version = chance.choice(self.users), str(chance.randint(8 if condition else 1, 12))
        visibility, others = chance.choice(VISIBILITIES), chance.sample(self.users, 6)
        strong = [user for user in self.users if user.number == 0 or (user is creator and version != "12")]
        # From version 12 on, creators have all power and are not to be named.
        powers = {user.id: 100 for user in strong if not (user is creator and version == "12")}
        states = [{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]
        if condition:
            allowed = [{"type": "m.room_membership", "room_id": condition}]
            states.append({"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allowed}})
        body = {"preset": "public_chat", "room_version": version, "power_level_content_override": {"users": powers}}
        body["initial_state"] = [{"state_key": "", **state} for state in states]
        status, answer = await creator.call("POST", "createRoom", body=body)
        if status != 200:
            return None
        room = answer["room_id"]
        self.add_room(room, version)
        self.report.note(f"{creator} made {room}, version {version}, {visibility}, for {condition or 'all'}")
        query = [(key, creator.host.name) for key in ("via", "server_name")]
        for other in others:
            status, _ = await other.call("POST", "join/{roomIdOrAlias}", room, query=query)
            self.report.note(f"{other} joins {room}: {status}")
        return room

    def add_room(self, room, version):
        self.rooms.append(room)
        self.versions[room] = int(version)

    async def snapshot(self, user, room):
        state = await user.state(room) or {}
        visibility = state.get(("m.room.history_visibility", ""), {"content": {}})["content"]
        members = {key: event["content"].get("membership") for (kind, key), event in state.items() if kind == "m.room.member"}
        return visibility.get("history_visibility", "shared"), members

    async def send(self, user, room, content, kind="m.room.message"):
        """Sends an event and notes it, if it is acknowledged."""
        marker = self.new_name("m")
        visibility, members = await self.snapshot(user, room)
        began, path = self.report.now(), "rooms/{roomId}/send/{eventType}/{txnId}"
        status, answer = await user.persist("PUT", path, room, kind, marker, body={**content, "marker": marker})
        ended = self.report.now()
        if status != 200:
            return None
        later, members_later = await self.snapshot(user, room)
        sent = Sent(room, answer["event_id"], user.id, user.host.name, marker, began, ended)
        sent.visibility, sent.before, sent.after = (visibility, later), members, members_later
        sent.ours = user.host.ours
        self.ledger.sent.append(sent)
        self.report.note(f"{user} sent {marker} {sent.event_id} to {room}")
        return sent

    async def step(self, number, act, chance):
        try:
            done = await asyncio.wait_for(act.play(self, chance), ACT_SECONDS_MAX)
        except Exception:
            # An act that fails is a fault of the play, which must not pass for a good run.
            self.report.found(Finding("play", traceback.format_exc()))
            return
        self.report.note(f"#{number} {act.name}: {done}" if act.name not in ("send", "relate") else f"#{number} {act.name}")

    async def act_at_random(self):
        all_acts, end = acts.load(), time.monotonic() + self.options.seconds
        weights = [act.wild if self.options.wild else act.calm for act in all_acts]
        running = set()
        for number in range(self.options.steps):
            act = self.chance.choices(all_acts, weights)[0]
            chance, pause = random.Random(self.chance.random()), self.chance.uniform(0, 0.5)
            running.add(asyncio.create_task(self.step(number, act, chance)))
            done, running = await asyncio.wait(running, timeout=pause)
            if len(running) >= ACTS_MAX:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if time.monotonic() > end:
                break
        if running:
            await asyncio.wait(running)
        # Last, for an act that was under way may have cut some.
        self.world.mend_wires(*self.world.cut)

    async def end(self):
        for task in self.syncing:
            task.cancel()
        for result in await asyncio.gather(*self.syncing, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                self.report.found(Finding("play", f"a client has ended: {result!r}"))


async def run(options, folder, report):
    world = World(folder, os.environ["SYNAPSE_PYTHON"], report)
    play = Play(world, report, options)
    try:
        await world.start()
        await play.begin()
        report.say("begun")
        await play.act_at_random()
        report.say("whole again")
        await rest.settle(play)
        await rest.ask(play)
        await devices_at_rest.ask(play)
        await play.end()
        await rest.ask_last(play)
        for finding in compare(play.ledger):
            report.found(finding)
        report.say(f"{len(play.ledger.sent)} events, {len(play.ledger.messages)} messages to devices")
    finally:
        await world.end()


def options(arguments):
    parser = argparse.ArgumentParser(prog="./x chaos", description="Random acts on two Warrens and a Synapse.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="names the acts")
    parser.add_argument("--steps", type=int, default=240, help="how many acts")
    parser.add_argument("--seconds", type=float, default=3600, help="after which no act is begun")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()), help="where runs have folders")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--wild", action="store_true", help="with kicks, bans, knocks, and rules that change")
    kind.add_argument("--calm", dest="wild", action="store_false", help="without them: the default")
    return parser.parse_args(arguments)


def main():
    chosen = options(sys.argv[1:])
    kind = "wild" if chosen.wild else "calm"
    chosen.folder.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{chosen.seed}-{kind}-", dir=chosen.folder))
    report = Report(folder)
    report.say(f"seed {chosen.seed}, {kind}, {chosen.steps} steps, in {folder}")
    try:
        asyncio.run(run(chosen, folder, report))
    except Exception:
        report.found(Finding("play", traceback.format_exc()))
    return 1 if report.close() else 0


if __name__ == "__main__":
    sys.exit(main())
