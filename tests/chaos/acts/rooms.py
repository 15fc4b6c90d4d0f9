"""Rooms and their state."""

import asyncio

from chaos.acts import act
from chaos.acts.memberships import enter


KNOCK_VERSION_MIN = 7


@act(10)
async def name(play, chance):
    user, room = play.member(chance)
    kind, content = chance.choice([("m.room.name", "name"), ("m.room.topic", "topic"), ("org.example.state", "value")])
    return await set_state(user, room, kind, {content: f"{chance.random()}"})


async def set_state(user, room, kind, content):
    status, _ = await user.call("PUT", "rooms/{roomId}/state/{eventType}/{stateKey}", room, kind, "", body=content)
    return str(user), room, kind, content, status


@act(3)
async def two_topics(play, chance):
    """Users of two servers say at once what the room is about."""
    room = chance.choice(play.rooms)
    users = list({user.host: user for user in play.users if user.membership(room) == "join"}.values())[:2]
    topics = [{"topic": f"{chance.random()}"} for _ in users]
    return await asyncio.gather(*(set_state(user, room, "m.room.topic", topic) for user, topic in zip(users, topics)))


@act(0, 4)
async def rules(play, chance):
    user, room = play.member(chance)
    # A rule that a room's version does not know lets nobody in, and no member change their name.
    knock = room and play.versions[room] >= KNOCK_VERSION_MIN
    rules = ["public", "public", "invite", "knock" if knock else "public"]
    visibilities = ["joined", "invited", "shared", "world_readable"]
    content = {"join_rule": chance.choice(rules)}
    if chance.random() < 0.5:
        return await set_state(user, room, "m.room.join_rules", content)
    content = {"history_visibility": chance.choice(visibilities)}
    return await set_state(user, room, "m.room.history_visibility", content)


@act(0, 4)
async def power_levels(play, chance):
    user, room = play.member(chance)
    status, content = await user.call("GET", "rooms/{roomId}/state/m.room.power_levels/", room)
    if status != 200:
        return status
    content.setdefault("users", {})[chance.choice(play.users).id] = chance.choice([0, 50, 100])
    return await set_state(user, room, "m.room.power_levels", content)


@act(1)
async def restricted(play, chance):
    """A room for those alone who are in another one, who come in or are turned away."""
    if len(play.rooms) >= play.rooms_max:
        return "there are enough"
    condition = chance.choice(play.rooms)
    return condition, await play.create_room(chance, condition)


@act(1)
async def upgrade(play, chance):
    """Somebody replaces a room by one of another version; some of those who were in it follow."""
    user, room = play.member(chance, strong=True)
    if len(play.rooms) >= play.rooms_max:
        return "there are enough"
    # Older ones do not know the rule of restricted rooms.
    body = {"new_version": str(chance.randint(8, 12))}
    status, answer = await user.call("POST", "rooms/{roomId}/upgrade", room, body=body)
    if status != 200:
        return str(user), room, status
    new = answer["replacement_room"]
    play.add_room(new, body["new_version"])
    play.ledger.upgrades.append((room, new))
    others = [other for other in play.users if other.membership(room) == "join" and other is not user]
    followers = chance.sample(others, min(len(others), 4))
    return str(user), room, body, new, [await enter(follower, new, user.host) for follower in followers]


OPEN = {"allow": ["*"], "deny": []}


@act(1, 2)
async def shut_out(play, chance):
    """A room shuts out the servers of one name for a while, and each server's strong one lets them in again."""
    user, room = play.member(chance, strong=True)
    content = {"allow": ["*"], "deny": [chance.choice(["127.0.0.1", "localhost"])]}
    done = [await set_state(user, room, "m.room.server_acl", content)] if room else []
    if not done or done[0][-1] not in (0, 200):
        return done
    play.ledger.shut.add(room)
    await asyncio.sleep(chance.choice([0.5, 2, 5]))
    return done, await let_in(play, room)


async def let_in(play, room):
    """Of each server one who may does it, for those who are shut out may not be heard."""
    done = []
    for host in play.world.hosts:
        users = [user for user in play.users if user.host is host and user.membership(room) == "join"]
        for user in users:
            done.append(await set_state(user, room, "m.room.server_acl", OPEN))
            if done[-1][-1] == 200:
                break
    return done
