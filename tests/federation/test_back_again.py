"""A server whose last user had left a room is back in it before another has sent what it said meanwhile, not having heard of
that: the join follows all of it, so that none of it is news."""

import pytest

from harness.client import bodies, joined, timeline
from harness.events import id_of
from harness.rooms import via

WIDE = '{"room":{"timeline":{"limit":1000}}}'


def everything(client, room):
    """The ids of all events of the room that the client is given when it pages back, oldest first."""
    found, query = [], {"limit": 100}
    while True:
        page = client.messages(room, **query)
        found += page["chunk"]
        if "end" not in page:
            return [event["event_id"] for event in found[::-1]]
        query["from"] = page["end"]


class Told:
    """What a client knows that applies the state and the timeline as it is told of them."""

    def __init__(self, client, room):
        self.client, self.room, self.texts, self.membership, self.unread = client, room, [], None, 0

    def until(self, event):
        def has_come(answer):
            found, events = joined(answer, self.room), timeline(answer, self.room)
            for told in [*found.get("state", {}).get("events", []), *events]:
                if (told["type"], told.get("state_key")) == ("m.room.member", self.client.user_id):
                    self.membership = told["content"]["membership"]
            self.texts += bodies(events)
            self.unread = found.get("unread_notifications", {}).get("notification_count", self.unread)
            return any(told["event_id"] == id_of(event) for told in events)

        self.client.sync_until(has_come, filter=WIDE)
        return self


def gone(alice, resident):
    """A room that alice has left, of which the resident says nothing."""
    copy = resident.create()
    alice.join(copy.room_id, query=via(resident))
    alice.leave(copy.room_id)
    alice.sync()
    return copy


def turn_out(resident, copy, user, *memberships):
    """Sets a user's membership to one after the other, with something said before and after. Answers with all that."""
    said = [resident.place(copy, resident.message(copy, "before"))]
    for membership in memberships:
        said.append(resident.next(copy, "m.room.member", {"membership": membership}, state_key=user.user_id))
    return [*said, resident.place(copy, resident.message(copy, "after"))]


@pytest.mark.parametrize("memberships", [("leave",), ("ban", "leave")], ids=["kicked", "banned and let in again"])
@pytest.mark.parametrize("way", ["together", "one by one", "with what the join follows"])
def test_what_a_server_is_late_with_is_history(server, alice, resident, way, memberships):
    copy = gone(alice, resident)
    room, said = copy.room_id, turn_out(resident, copy, alice, *memberships)
    alice.join(room, query=via(resident))
    join = copy.state["m.room.member", alice.user_id]
    late = said if way == "with what the join follows" else said[:-1]
    for pdus in [[event] for event in late] if way == "one by one" else [late]:
        assert resident.transact(server, pdus) == {id_of(event): {} for event in pdus}
    live = resident.place(copy, resident.message(copy, "live"))
    assert resident.transact(server, [live]) == {id_of(live): {}}
    told = Told(alice, room).until(live)
    assert told.membership == "join"
    # That the join follows a message is not known before what lies between has come.
    is_message_news = way == "one by one"
    assert told.texts == (["before"] if is_message_news else []) + ["live"]
    assert told.unread == len(told.texts)
    # Whoever pages back finds all of it, each behind what it follows.
    here = everything(alice, room)
    history = [id_of(event) for event in said[is_message_news:]]
    wanted = [*history, join, id_of(live)]
    assert [event_id for event_id in here if event_id in wanted] == wanted
    assert id_of(said[0]) in here
    # What the join follows is no end of the room.
    own = alice.send(room, "here again")
    resident.until(lambda: own in [id_of(event) for event in resident.pdus])
    assert not {id_of(event) for event in said} & set(resident.events[own]["prev_events"])


def test_a_ban_that_whoever_let_a_user_in_had_not_heard_of_counts(server, alice, resident):
    """It claims less depth than the join."""
    copy = gone(alice, resident)
    room = copy.room_id
    ban = resident.event(copy, "m.room.member", {"membership": "ban"}, state_key=alice.user_id)
    for number in range(3):
        resident.place(copy, resident.message(copy, f"away {number}"))
    alice.join(room, query=via(resident))
    assert ban["depth"] < resident.events[copy.state["m.room.member", alice.user_id]]["depth"]
    assert resident.transact(server, [ban]) == {id_of(ban): {}}
    alice.sync_until(lambda _: room not in alice.get("joined_rooms")["joined_rooms"])


def test_what_somebody_said_who_is_gone_by_now_is_history(server, alice, resident):
    """It follows what was here when alice left, and only what comes later is known to be missing. Its sender is not in the room any
    more when it comes."""
    copy = resident.create()
    room, dave = copy.room_id, resident.user("dave")
    resident.next(copy, "m.room.member", {"membership": "join"}, sender=dave, state_key=dave)
    alice.join(room, query=via(resident))
    alice.leave(room)
    alice.sync()
    late = resident.place(copy, resident.message(copy, "late", sender=dave))
    left = resident.next(copy, "m.room.member", {"membership": "leave"}, sender=dave, state_key=dave)
    said = [late, left, *turn_out(resident, copy, alice, "leave")]
    alice.join(room, query=via(resident))
    join = copy.state["m.room.member", alice.user_id]
    assert resident.transact(server, [late]) == {id_of(late): {}}
    live = resident.place(copy, resident.message(copy, "live"))
    assert resident.transact(server, [live]) == {id_of(live): {}}
    assert Told(alice, room).until(live).texts == ["live"]
    wanted = [*(id_of(event) for event in said), join, id_of(live)]
    assert [event_id for event_id in everything(alice, room) if event_id in wanted] == wanted
