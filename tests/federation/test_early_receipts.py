"""Receipts that come before the events that they are for (server-server API, "Receipts")."""

import threading

from harness.client import bodies, timeline
from harness.participant import SECONDS_MAX, Participant, id_of
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


class Held(Participant):
    """Tells what others have missed when it is let."""

    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        self.let = threading.Event()

    def answer_get_missing_events(self, *question):
        self.let.wait(SECONDS_MAX)
        return super().answer_get_missing_events(*question)


def test_a_receipt_of_a_user_whose_join_waits_for_what_is_before_it_is_not_lost(server, alice, network):
    peer = network.peer(kind=Held)
    room_id = alice.create_room(preset="public_chat", room_version="11")
    copy = peer.join(server, room_id)
    event_id = alice.send(room_id, "hello")
    peer.until(lambda: event_id in peer.events)
    carl = peer.user("carl")
    peer.place(copy, peer.message(copy, "before the join"))
    join = peer.next(copy, "m.room.member", {"membership": "join"}, sender=carl, state_key=carl)
    assert peer.transact(server, [join]) == {id_of(join): {}}
    peer.transact(server, edus=[receipt(room_id, carl, peer.events[event_id])])
    peer.let.set()
    alice.sync_until(lambda answer: read_by(answer, room_id, event_id) == {carl})
    peer.close()
