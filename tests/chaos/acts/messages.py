"""Messages, relations, redactions and receipts."""

from chaos.acts import act


@act(30)
async def send(play, chance):
    user, room = play.member(chance)
    if not room:
        return "nobody is in a room"
    count = chance.choice([1, 1, 1, 2, 6])
    return [await play.send(user, room, {"msgtype": "m.text", "body": f"hello {number}"}) for number in range(count)]


@act(8)
async def relate(play, chance):
    user, room = play.member(chance)
    events = [sent for sent in play.ledger.sent if sent.room == room][-6:]
    if not events:
        return "nothing to relate to"
    event_id, kind = chance.choice(events).event_id, chance.choice(["m.annotation", "m.thread"])
    relation = {"rel_type": kind, "event_id": event_id}
    if kind == "m.annotation":
        return await play.send(user, room, {"m.relates_to": {**relation, "key": "a"}}, "m.reaction")
    return await play.send(user, room, {"msgtype": "m.text", "body": "in a thread", "m.relates_to": relation})


@act(6)
async def redact(play, chance):
    user, room = play.member(chance)
    events = [sent for sent in play.ledger.sent if sent.room == room][-8:]
    if not events:
        return "nothing to redact"
    event_id = chance.choice(events).event_id
    path = "rooms/{roomId}/redact/{eventId}/{txnId}"
    return str(user), event_id, (await user.call("PUT", path, room, event_id, play.new_name("r")))[0]


@act(5)
async def receipt(play, chance):
    user, room = play.member(chance)
    # Nobody is told that somebody has read what they wrote.
    events = [event_id for event_id in user.watcher.timeline.get(room, []) if event_id not in user.watcher.own]
    if not events:
        return "nothing to read"
    event_id = events[-1]
    status, _ = await user.call("POST", "rooms/{roomId}/receipt/m.read/{eventId}", room, event_id)
    if status == 200:
        play.ledger.receipts[room, user.id] = (event_id, play.report.now())
    return str(user), room, event_id, status
