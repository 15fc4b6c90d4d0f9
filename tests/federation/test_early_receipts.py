"""Receipts that come before the events that they are for (server-server API, "Receipts")."""

from harness.client import bodies, timeline
from harness.metrics import told
from harness.omitting import Omitting
from harness.participant import Participant, id_of
from harness.rooms import read_by, via
from harness.withholding import Withholding

EDUS = "warren_federation_edus_dropped_total"
# So many receipts of one server's users wait in a room.
WAITING_MAX = 250


def receipts(room_id, user_ids, event, thread=None):
    data = {"ts": 1} if thread is None else {"ts": 1, "thread_id": id_of(thread)}
    read = {user_id: {"event_ids": [id_of(event)], "data": data} for user_id in user_ids}
    return {"edu_type": "m.receipt", "content": {room_id: {"m.read": read}}}


def receipt(room_id, user_id, event, thread=None):
    return receipts(room_id, [user_id], event, thread)


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


class Held(Withholding):
    """Tells what others have missed when it is let."""

    def answer_get_missing_events(self, *question):
        self.until_it_may()
        return super().answer_get_missing_events(*question)


def test_a_receipt_of_a_user_whose_join_waits_for_what_is_before_it_is_not_lost(server, alice, until_over):
    peer = until_over(Held)
    room_id = alice.create_room(preset="public_chat", room_version="11")
    copy = peer.join(server, room_id)
    event_id = alice.send(room_id, "hello")
    peer.until(lambda: event_id in peer.events)
    carl = peer.user("carl")
    peer.place(copy, peer.message(copy, "before the join"))
    join = peer.next(copy, "m.room.member", {"membership": "join"}, sender=carl, state_key=carl)
    assert peer.transact(server, [join]) == {id_of(join): {}}
    peer.transact(server, edus=[receipt(room_id, carl, peer.events[event_id])])
    peer.may_answer.set()
    alice.sync_until(lambda answer: read_by(answer, room_id, event_id) == {carl})


def test_receipts_that_find_no_place_are_counted_and_cost_others_nothing(measured, alice, until_over):
    """Of a room whose members are not known yet a server may say that any number of its users has read what is not here."""
    server, refusals = measured
    hostile, honest = until_over(Omitting), until_over(Participant)
    honest.share(hostile)
    hostile.others = [honest.name]
    copy, member = hostile.create(), honest.user("member")
    room_id = copy.room_id
    honest.come(copy, member)
    alice.join(room_id, query=via(hostile))
    event_id = alice.send(room_id, "hello")
    hostile.until(lambda: event_id in hostile.events)
    made_up = [hostile.user(f"user{number}") for number in range(WAITING_MAX + 2)]
    hostile.transact(server, edus=[receipts(room_id, made_up, hostile.message(copy, "untold"))])
    assert told(refusals.address, EDUS) == {("too_many_waiting",): 2}
    # Others, and who is known to be there, are heard all the same.
    wanted, seen = {hostile.user(), member}, set()
    for peer, user in ((hostile, hostile.user()), (honest, member)):
        peer.transact(server, edus=[receipt(room_id, user, hostile.events[event_id])])
    hostile.may_tell.set()
    alice.sync_until(lambda answer: seen.update(read_by(answer, room_id, event_id)) or seen >= wanted)
    assert seen == wanted and told(refusals.address, EDUS) == {("too_many_waiting",): 2}
