"""How a play comes to rest: closing words are waited for everywhere, then servers and clients are asked for what they have."""

import asyncio
import time

from chaos.acts.administration import resynchronise_on
from chaos.acts.memberships import ask_to_enter
from chaos.acts.rooms import let_in
from chaos.ledger import Admission

# After long cuts servers wait with their next attempt.
CLOSING_SECONDS_MAX, SYNAPSE_SECONDS_MAX = 120, 30
QUIET_SECONDS, QUIET_SECONDS_MAX = 8, 60
ADMISSIONS_EACH = 4
CONTENTS = ["m.room.join_rules", "m.room.server_acl", "m.room.power_levels"]


async def settle(play):
    """Each server with a member says something in each room: whoever lacks what came before asks for it. Twice, for what was
    made while the first ones were on their way. Servers that a room shuts out are let in before that."""
    for room in sorted(play.ledger.shut):
        play.report.note("let in at last:", room, await let_in(play, room))
    for _ in range(2):
        closing = [await _close(play, room, host) for room in play.rooms for host in play.world.hosts]
        # In a room that is closed a word may be refused where that has been heard of.
        closed = {old for old, _ in play.ledger.upgrades}
        await _wait_for(play, [sent for sent in closing if sent and sent.room not in closed])
    await _wait_for_quiet(play)


async def _close(play, room, host):
    """Whoever of a server may speak in a room says its last word there."""
    for user in play.users:
        if user.host is host and user.membership(room) == "join":
            if sent := await play.send(user, room, {"msgtype": "m.text", "body": "closing"}):
                return sent
    return None


async def _wait_for(play, closing):
    """Synapse's clients go on to show rooms that they are out of, so they are not waited for that long."""
    start = time.monotonic()
    while (gone := time.monotonic() - start) < CLOSING_SECONDS_MAX:
        lacking = [
            (str(user), sent.marker)
            for sent in closing
            for user in play.users
            if (user.host.ours or gone < SYNAPSE_SECONDS_MAX)
            and user.membership(sent.room) == "join"
            and sent.event_id not in user.watcher.was_shown(sent.room)
        ]
        if not lacking:
            return
        await asyncio.sleep(1)
    play.report.note("closing words that did not come:", lacking)


async def _wait_for_quiet(play):
    """Until no client has been told anything for a while."""
    end, since, last = time.monotonic() + QUIET_SECONDS_MAX, time.monotonic(), None
    while time.monotonic() < end and time.monotonic() - since < QUIET_SECONDS:
        news = sum(user.news for user in play.users)
        if news != last:
            since, last = time.monotonic(), news
        await asyncio.sleep(1)


async def ask(play):
    """Fills the ledger with what servers have, and what users get who ask."""
    play.ledger.restarted = play.world.restarted
    for room in play.rooms:
        for user in play.users:
            path = "rooms/{roomId}/state/m.room.member/{userId}"
            status, content = await user.call("GET", path, room, user.id)
            membership = content.get("membership") if status == 200 else None
            play.ledger.own.setdefault(room, {})[user.id] = membership
            if membership != "join":
                continue
            play.ledger.names.setdefault(room, {})[user.id] = content.get("displayname")
            if user.host.name not in play.ledger.states.setdefault(room, {}):
                await _ask_for_state(play, room, user)
            events = await user.pages(room, {"limit": 100})
            user.watcher.history[room] = [event["event_id"] for event in events]
    for room in [room for room in play.ledger.shut if any(_shuts_out(play, room))]:
        play.report.note("left out, for it shuts a server out still:", room)
        play.ledger.leave_out(room)
    await _probe(play)


async def _ask_for_state(play, room, user):
    state = await user.state(room)
    if state is None:
        return
    host, content = user.host.name, lambda kind: state.get((kind, ""), {"content": {}})["content"]
    play.ledger.states[room][host] = {
        key: (event["event_id"], event["content"].get("membership") if key[0] == "m.room.member" else None)
        for key, event in state.items()
    }
    predecessor = (content("m.room.create").get("predecessor") or {}).get("room_id")
    play.ledger.links.setdefault(room, {})[host] = predecessor, content("m.room.tombstone").get("replacement_room")
    play.contents.setdefault(room, {})[host] = {kind: content(kind) for kind in CONTENTS}


def _shuts_out(play, room):
    return (bool(contents["m.room.server_acl"].get("deny")) for contents in play.contents.get(room, {}).values())


async def _probe(play):
    """Asks for events by their ids, for users who may not see them, and as Synapse where none of its users ever might."""
    guests = [user for user in play.users if not user.host.ours]
    for sent in play.ledger.sent:
        for user in play.users:
            if user.id != sent.user and sent.may_be_seen_by(user.watcher) is False:
                status, _ = await user.call("GET", "rooms/{roomId}/event/{eventId}", sent.room, sent.event_id)
                if status == 200:
                    user.watcher.probed.setdefault(sent.room, []).append(sent.event_id)
        if all(sent.may_be_seen_by(user.watcher) is False for user in guests) and sent.visibility[0] != "shared":
            await _probe_as_synapse(play, sent)


async def _probe_as_synapse(play, sent):
    for host in play.world.hosts[:2]:
        status, text = await play.world.ask_as_synapse(host, "/_matrix/federation/v1/event/{eventId}", sent.event_id)
        if status == 200 and sent.marker in text:
            play.ledger.told.append((host.name, host.ours, sent.event_id))


async def ask_last(play):
    """What changes something, after all else: who comes into restricted rooms, and what resynchronisations find."""
    for room in play.rooms:
        for host in play.world.hosts[:2]:
            if host.name in play.ledger.states.get(room, {}):
                report = await resynchronise_on(play, room, host)
                play.report.note(f"resynchronised {room} on {host.name}: {report}")
                play.ledger.reports.append((room, host.name, report))
    for room in play.rooms:
        rules = {str(contents["m.room.join_rules"]) for contents in play.contents.get(room, {}).values()}
        if len(rules) == 1 and room in play.ledger.own:
            await _ask_to_come_in(play, room, next(iter(play.contents[room].values()))["m.room.join_rules"])


async def _ask_to_come_in(play, room, rules):
    """Users of servers that may let somebody in ask, who are in the room that is the condition, or not, as all servers say."""
    condition = rules["allow"][0].get("room_id") if rules.get("allow") else None
    replaced = any(replacement for _, replacement in play.ledger.links[room].values())
    if rules.get("join_rule") != "restricted" or replaced or condition not in play.ledger.own:
        return
    own, inside = play.ledger.own[room], play.ledger.own[condition]
    hosts = {user.host for user in play.users if own.get(user.id) == "join" and _may_invite(play, room, user)}
    outside = [user for user in play.users if user.host in hosts and _memberships(play, room, user) <= {None, "leave"}]
    for user in outside[:ADMISSIONS_EACH]:
        if any((asked.room, asked.user, asked.status) == (condition, user.id, 200) for asked in play.ledger.admissions):
            continue
        entitled = _memberships(play, condition, user) == {"join"} and inside[user.id] == "join"
        status, _ = await ask_to_enter(user, room, *play.world.hosts)
        play.report.note(f"{user}, entitled: {entitled}, joins {room}: {status}")
        play.ledger.admissions.append(Admission(room, user.id, user.host.name, user.host.ours, entitled, status))


def _may_invite(play, room, user):
    levels = next(iter(play.contents[room].values()))["m.room.power_levels"]
    return levels.get("users", {}).get(user.id, levels.get("users_default", 0)) >= levels.get("invite", 0)


def _memberships(play, room, user):
    """What the servers in a room hold a user to be."""
    states = play.ledger.states[room].values()
    return {state.get(("m.room.member", user.id), (None, None))[1] for state in states}
