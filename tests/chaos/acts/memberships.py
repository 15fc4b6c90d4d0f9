"""Who comes into rooms, leaves them and is turned out."""

import asyncio

from chaos.acts import act


async def ask_to_enter(user, room, *hosts, verb="join"):
    query = [(key, host.name) for host in hosts for key in ("via", "server_name")]
    return await user.call("POST", verb + "/{roomIdOrAlias}", room, query=query)


async def enter(user, room, *hosts, verb="join"):
    status, answer = await ask_to_enter(user, room, *hosts, verb=verb)
    return f"{user} {verb} {status} {answer.get('errcode', '')}"


async def turn(play, user, verb, room, other):
    status, _ = await user.call("POST", "rooms/{roomId}/" + verb, room, body={"user_id": other.id})
    if verb in ("kick", "ban") and status in (0, 200):
        play.ledger.turned_out.add((room, other.id))
    return f"{user} {verb} {other} {status}"


async def go(user, room):
    return f"{user} leave {(await user.call('POST', 'rooms/{roomId}/leave', room))[0]}"


@act(12)
async def join(play, chance):
    user, room = chance.choice(play.users), chance.choice(play.rooms)
    hosts = chance.sample(play.world.hosts, 2)
    invited = [other for other in play.rooms if user.membership(other) == "invite"]
    room = chance.choice(invited) if invited else room
    return room, await enter(user, room, *hosts)


@act(7)
async def invite(play, chance):
    user, room = play.member(chance)
    return room, await turn(play, user, "invite", room, chance.choice(play.users))


@act(5)
async def leave(play, chance):
    user, room = play.member(chance)
    return room, await go(user, room)


@act(0, 8)
async def kick(play, chance):
    user, room = play.member(chance)
    return room, await turn(play, user, chance.choice(["kick", "ban", "unban", "unban"]), room, chance.choice(play.users))


@act(0, 3)
async def knock(play, chance):
    room = chance.choice(play.rooms)
    return room, await enter(chance.choice(play.users), room, *chance.sample(play.world.hosts, 2), verb="knock")


@act(3)
async def come_back(play, chance):
    """A server's last users leave while one of the others cannot hear of it, and one of them comes back by the third."""
    room, (away, deaf, third) = chance.choice(play.rooms), chance.sample(play.world.hosts, 3)
    users = [user for user in play.users if user.host is away and user.membership(room) == "join"]
    if not users:
        return "nobody is there"
    play.world.part(away, deaf)
    done = [await go(user, room) for user in users]
    done.append(await enter(chance.choice(users), room, third))
    play.world.join_again(away, deaf)
    return room, done


@act(2, 4)
async def out_and_in(play, chance):
    """A user is turned out, while their server may not hear of it, invited, and comes back."""
    user, room = play.member(chance)
    others = [other for other in play.users if other.membership(room) == "join" and other.host is not user.host]
    if not others:
        return "nobody is there"
    other, parted = chance.choice(others), chance.random() < 0.5
    if parted:
        play.world.part(user.host, other.host)
    done = [await turn(play, user, "kick", room, other)]
    await asyncio.sleep(chance.choice([0, 0.3, 2]))
    play.world.join_again(user.host, other.host)
    done.append(await turn(play, user, "invite", room, other))
    done.append(await enter(other, room, *chance.sample(play.world.hosts, 2)))
    return room, parted, done
