"""What tests with several servers ask about rooms."""

from harness.client import joined, timeline

# The filter of who loads members lazily: others are shown no room that lacks some.
LAZY = '{"room":{"state":{"lazy_load_members":true},"timeline":{"lazy_load_members":true}}}'


def via(server):
    """By which server a room is to be entered, in the words of the specification's versions."""
    return {"via": server.name, "server_name": server.name}


def see(client, room, event_id, **query):
    """Waits until the client is told of an event, and returns it."""

    def found(answer):
        return next((event for event in timeline(answer, room) if event["event_id"] == event_id), None)

    return client.sync_until(found, **query)


def everything(client, room):
    """All events of the room that the client is given when it pages back, oldest first."""
    found, query = [], {"limit": 100}
    while True:
        page = client.messages(room, **query)
        found += page["chunk"]
        if "end" not in page:
            return found[::-1]
        query["from"] = page["end"]


def contents(client, room):
    """The contents of the room's current state as one server has it."""
    return {(event["type"], event["state_key"]): event["content"] for event in state(client, room)}


def state(client, room):
    return client.get("rooms/{roomId}/state", room)


def state_ids(client, room):
    """The ids of the room's current state as one server has it."""
    return {event["event_id"] for event in state(client, room)}


def members(client, room, membership):
    found = client.get("rooms/{roomId}/members", room, query={"membership": membership})["chunk"]
    return {event["state_key"] for event in found}


def read_by(answer, room, event_id):
    """The users who have read up to an event, as a sync answer tells of it."""
    events = joined(answer, room).get("ephemeral", {}).get("events", [])
    receipts = [event["content"].get(event_id, {}) for event in events if event["type"] == "m.receipt"]
    return {user for kinds in receipts for user in kinds.get("m.read", {})}


def joined_members(client, room):
    return members(client, room, "join")


def until_joined(client, room, *others):
    """Waits until the client's server knows that others are in the room: it may have come in without its members."""
    until_membership(client, room, "join", *others)


def until_membership(client, room, membership, *others):
    wanted = {other.user_id for other in others}
    client.sync_until(lambda _: wanted <= members(client, room, membership))


def until_state(client, room, type, key, content):
    """Waits until the room's state has this content, as the client sees it."""

    def has(_):
        found = [event for event in state(client, room) if (event["type"], event["state_key"]) == (type, key)]
        return bool(found) and found[0]["content"] == content

    client.sync_until(has)


def meet(owner, guest, server, **more):
    """A room of the owner's, who is at the server, that the guest has joined, as both of their servers know."""
    room = owner.create_room(preset="public_chat", **more)
    guest.join(room, query=via(server))
    until_joined(guest, room, owner)
    until_joined(owner, room, guest)
    return room


def come_together(owner, guest, server, version):
    """The guest joins a room of the owner's server; both servers hold the same of it, and both hear each other."""
    room = meet(owner, guest, server, room_version=version, name="The burrow", topic="warm")
    assert state_ids(guest, room) == state_ids(owner, room)
    assert joined_members(owner, room) == joined_members(guest, room) == {owner.user_id, guest.user_id}
    for reader in (owner, guest):
        assert reader.state(room, "m.room.create")["room_version"] == version
        assert reader.state(room, "m.room.topic")["topic"] == "warm"
    for sender, reader in ((owner, guest), (guest, owner)):
        event_id = sender.send(room, f"hello from {sender.user_id}")
        assert see(reader, room, event_id)["content"]["body"] == f"hello from {sender.user_id}"


def entrust(owner, room, user, level=50):
    """Gives a user of the room more power, and waits until that one's server knows."""
    power = owner.state(room, "m.room.power_levels")
    power["users"][user.user_id] = level
    owner.set_state(room, "m.room.power_levels", power)
    until_state(user, room, "m.room.power_levels", "", power)


def invited(answer, room):
    """What a sync answer says of an invite, or an empty object."""
    return answer.get("rooms", {}).get("invite", {}).get(room, {})


def left(answer, room):
    return answer.get("rooms", {}).get("leave", {}).get(room)


def knocked(answer, room):
    return answer.get("rooms", {}).get("knock", {}).get(room, {})
