"""What befalls wires and servers."""

import asyncio

from chaos.acts import act
from chaos.acts.memberships import enter


@act(4)
async def cut(play, chance):
    one, other = chance.sample(range(3), 2)
    pairs = [(one, other), (other, one)] if chance.random() < 0.7 else [(one, other)]
    play.world.cut_wires(*pairs)
    return pairs


@act(5)
async def mend(play, chance):
    one, other = chance.sample(play.world.hosts, 2)
    play.world.join_again(one, other)
    return one.name, other.name


@act(2)
async def restart(play, chance):
    host, seconds, kill = chance.choice(play.world.hosts), chance.uniform(0, 6), chance.random() < 0.6
    if not play.world.all_up():
        return "another is down"
    await play.world.restart(host, seconds, kill)
    return host.name, "killed" if kill and host.ours else "stopped"


@act(1.5)
async def pause(play, chance):
    host, seconds = chance.choice(play.world.hosts), chance.uniform(1, 8)
    if not play.world.all_up():
        return "another is down"
    await play.world.pause(host, seconds)
    return host.name, seconds


@act(2)
async def kill_in_a_join(play, chance):
    """Who joins, or who lets in, is killed in the middle of it; the join is tried again."""
    user, room, after = chance.choice(play.users), chance.choice(play.rooms), chance.choice([0.01, 0.03, 0.1, 0.25])
    host = chance.choice([host for host in play.world.hosts if host is not user.host])
    victim = chance.choice([host for host in (user.host, host) if host.ours] or [host])
    if not play.world.all_up():
        return "another is down"
    joining = asyncio.create_task(enter(user, room, host))
    await asyncio.sleep(after)
    await play.world.restart(victim, chance.choice([0, 0.5, 3]), kill=True)
    return room, victim.name, await joining, await enter(user, room, host)
