"""Rooms and their state."""

import asyncio

from chaos.acts import act


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
    rules = ["public", "public", "invite", "knock"]
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
