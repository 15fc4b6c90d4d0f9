"""What administrators of a Warren do to rooms."""

import asyncio
import time

from chaos.acts import act
from chaos.ledger import Purge
from harness.client import address

RESYNCHRONISE_SECONDS_MAX = 60
# What is kept of a room's last words, and how much there must be for some of it to go.
KEPT, EVENTS_MIN = 4, 10


async def resynchronise_on(play, room, host, *servers):
    """Has a Warren resynchronise a room. Returns its report, or why there is none."""
    path = address("/_warren/admin/v1/rooms/{roomId}/resynchronise", room)
    status, report = await play.world.request(host, "POST", path, host.admin, {"servers": list(servers)})
    end = time.monotonic() + RESYNCHRONISE_SECONDS_MAX
    while status == 200 and report["status"] == "active" and time.monotonic() < end:
        await asyncio.sleep(0.2)
        status, report = await play.world.request(host, "GET", path, host.admin)
    return report


@act(2)
async def resynchronise(play, chance):
    host, room = chance.choice(play.world.hosts[:2]), chance.choice(play.rooms)
    servers = [other.name for other in play.world.hosts if other is not host]
    return host.name, room, await resynchronise_on(play, room, host, *chance.sample(servers, chance.randint(0, 2)))


def messages(events):
    return {event["event_id"] for event in events if "state_key" not in event}


@act(1.5)
async def purge_history(play, chance):
    """One Warren forgets what was said in a room before an event that somebody has there."""
    host, room = chance.choice(play.world.hosts[:2]), chance.choice(play.rooms)
    users = [user for user in play.users if user.host is host and user.membership(room) == "join"]
    if not users or not play.world.all_up():
        return "nobody is there, or another is down"
    user = chance.choice(users)
    events = await user.pages(room, {"limit": 100})
    if len(events) < EVENTS_MIN:
        return "too little was said"
    place = chance.randint(KEPT, len(events) // 2)
    purge = Purge(host.name, room, user.id, messages(events[place + 1 :]), messages(events[: place + 1]), float("inf"))
    play.ledger.purges.append(purge)
    await play.world.command(host, "room", "purge-history", room, "--before", events[place]["event_id"])
    purge.ended = play.report.now()
    # What the next events follow stays where it is.
    purge.gone -= messages(await user.pages(room, {"limit": 100}))
    return host.name, room, len(events), place, len(purge.gone)
