"""State that was told with a join lies in no timeline, and is still what the next event of its kind takes the place of."""

from harness.events import id_of
from harness.rooms import invited, see, via


def test_the_first_change_tells_what_was_before(server, alice, resident):
    copy = resident.create()
    member = {"membership": "join", "displayname": "Before"}
    resident.next(copy, "m.room.member", member, state_key=copy.user)
    resident.next(copy, "m.room.topic", {"topic": "before"}, state_key="")
    alice.join(copy.room_id, query=via(resident))
    topic = resident.next(copy, "m.room.topic", {"topic": "after"}, state_key="")
    renamed = resident.next(copy, "m.room.member", {**member, "displayname": "After"}, state_key=copy.user)
    resident.transact(server, [topic, renamed])
    shown = see(alice, copy.room_id, id_of(renamed))["unsigned"]
    assert (shown["prev_content"], shown["prev_sender"]) == (member, copy.user)
    shown = alice.get("rooms/{roomId}/event/{eventId}", copy.room_id, id_of(topic))["unsigned"]
    assert shown["prev_content"] == {"topic": "before"}


def test_a_join_tells_of_the_invite(server, alice, resident):
    copy = resident.create(join_rule="invite")
    content = {"membership": "invite", "is_direct": True}
    invite = resident.next(copy, "m.room.member", content, state_key=alice.user_id)
    status, _ = resident.send_invite(server, copy.room_id, invite)
    assert status == 200
    alice.sync_until(lambda answer: invited(answer, copy.room_id))
    alice.join(copy.room_id, query=via(resident))
    shown = see(alice, copy.room_id, copy.state["m.room.member", alice.user_id])["unsigned"]
    assert (shown["prev_content"], shown["prev_sender"]) == (content, copy.user)
