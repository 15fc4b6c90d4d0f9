"""Messages to devices, and profiles."""

from chaos.acts import act


@act(8)
async def message_devices(play, chance):
    user, other = chance.choice(play.users), chance.choice(play.users)
    marker, device = play.new_name("d"), chance.choice(["*", other.device])
    body = {"messages": {other.id: {device: {"marker": marker}}}}
    path = "sendToDevice/{eventType}/{txnId}"
    status, _ = await user.persist("PUT", path, "org.example.message", marker, body=body)
    if status == 200:
        play.ledger.messages.append((marker, other.id))
    return str(user), str(other), marker, status


@act(3)
async def display_name(play, chance):
    user, name = chance.choice(play.users), f"name {chance.random()}"
    status, _ = await user.call("PUT", "profile/{userId}/displayname", user.id, body={"displayname": name})
    return str(user), name, status
