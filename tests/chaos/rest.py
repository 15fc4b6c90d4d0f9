"""How a play comes to rest: closing words are waited for everywhere, then servers and clients are asked for what they have."""

import asyncio
import time

# After long cuts servers wait with their next attempt.
CLOSING_SECONDS_MAX = 120
QUIET_SECONDS, QUIET_SECONDS_MAX = 8, 60


async def settle(play):
    """Each server with a member says something in each room: whoever lacks what came before asks for it. Twice, for what was
    made while the first ones were on their way."""
    for _ in range(2):
        closing = []
        for room in play.rooms:
            for host in play.world.hosts:
                users = [user for user in play.users if user.host is host and user.membership(room) == "join"]
                if users and (sent := await play.send(users[0], room, {"msgtype": "m.text", "body": "closing"})):
                    closing.append(sent)
        await _wait_for(play, closing)
    await _wait_for_quiet(play)


async def _wait_for(play, closing):
    end = time.monotonic() + CLOSING_SECONDS_MAX
    while time.monotonic() < end:
        lacking = [
            (str(user), sent.marker)
            for sent in closing
            for user in play.users
            if user.membership(sent.room) == "join" and sent.event_id not in user.watcher.was_shown(sent.room)
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
    for room in play.rooms:
        states, own = play.ledger.states.setdefault(room, {}), play.ledger.own.setdefault(room, {})
        for user in play.users:
            path = "rooms/{roomId}/state/m.room.member/{userId}"
            status, content = await user.call("GET", path, room, user.id)
            own[user.id] = content.get("membership") if status == 200 else None
            if own[user.id] != "join":
                continue
            if user.host.name not in states and (state := await user.state(room)) is not None:
                states[user.host.name] = {
                    key: (event["event_id"], event["content"].get("membership") if key[0] == "m.room.member" else None)
                    for key, event in state.items()
                }
            events = await user.pages(room, {"limit": 100})
            user.watcher.history[room] = [event["event_id"] for event in events]
    await _probe(play)


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
