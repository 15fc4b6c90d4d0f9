"""Receipts that come before the events that they are for (server-server API, "Receipts")."""

from harness.client import bodies, timeline
from harness.participant import id_of
from harness.rooms import read_by


def receipt(room_id, user_id, event, thread=None):
    data = {"ts": 1} if thread is None else {"ts": 1, "thread_id": id_of(thread)}
    read = {user_id: {"event_ids": [id_of(event)], "data": data}}
    return {"edu_type": "m.receipt", "content": {room_id: {"m.read": read}}}


def test_a_receipt_that_comes_before_its_event_is_not_lost(server, alice, resident):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room_id)
    carl = resident.user("carl")
    resident.transact(server, [resident.next(copy, "m.room.member", {"membership": "join"}, sender=carl, state_key=carl)])
    root = resident.place(copy, resident.message(copy, "root"))
    relation = {"rel_type": "m.thread", "event_id": id_of(root)}
    inside = resident.place(copy, resident.event(copy, "m.room.message", {"body": "inside", "m.relates_to": relation}))
    resident.transact(server, edus=[receipt(room_id, carl, root), receipt(room_id, resident.user(), inside, thread=root)])
    alice.send(room_id, "hello")
    answer = alice.sync_until(lambda answer: answer if "hello" in bodies(timeline(answer, room_id)) else None)
    assert read_by(answer, room_id, id_of(root)) == set()
    # One comes in a transaction, one is fetched because another follows it.
    resident.transact(server, [root])
    alice.sync_until(lambda answer: read_by(answer, room_id, id_of(root)) == {carl})
    resident.transact(server, [resident.place(copy, resident.message(copy, "after it"))])
    alice.sync_until(lambda answer: read_by(answer, room_id, id_of(inside)) == {resident.user()})
