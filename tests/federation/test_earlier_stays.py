"""A user left a room before its members were told, and came back with all of them: whom the earlier stay lacks is still asked
for, and nothing that concerns the room as it is now waits for that."""

import pytest

from harness.client import bodies
from harness.omitting import PARTIAL_JOINS, Omitting, until_all_whole
from harness.participant import UNKNOWN, Participant, id_of, path
from harness.rooms import everything, joined_members, via
from harness.waiting import until


class Resident(Omitting):
    """Leaves members out as long as a test wants it, and tells nobody the state before a join that lacked some."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.omits, self.untold = True, set()
        self.may_tell.set()

    def answer_send_join(self, values, query, body):
        if not self.omits:
            return Participant.answer_send_join(self, values, query, body)
        self.untold.add(id_of(body))
        return super().answer_send_join(values, query, body)

    def answer_state(self, values, query, body):
        return UNKNOWN if query["event_id"] in self.untold else super().answer_state(values, query, body)


@pytest.fixture
def resident_kind():
    return Resident


def stay(resident, client, copy):
    """The user comes, is told no members, and leaves. What is said then is not heard. Answers with the join and with that."""
    client.join(copy.room_id, query=via(resident))
    join = copy.state["m.room.member", client.user_id]
    client.leave(copy.room_id)

    def leaves():
        return [event for event in resident.pdus if event["content"] == {"membership": "leave"} and join in event["prev_events"]]

    resident.until(leaves)
    resident.take(copy, leaves()[0])
    return join, resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": f"unheard after {join}"})


def come_back(resident, client, copy):
    """The user comes and is told all members."""
    resident.omits = False
    client.join(copy.room_id, query=via(resident))
    assert joined_members(client, copy.room_id) == {resident.user(), client.user_id}


def asked_for(resident, copy, join):
    """Whether the state before the join was asked for."""
    return any(join[1:] in request.target for request in resident.asked(path("v1/state/{}", copy.room_id)))


def test_history_is_read_though_nobody_tells_of_an_earlier_stay(warren, admin, alice, resident):
    copy = resident.create()
    room = copy.room_id
    _, unheard = stay(resident, alice, copy)
    come_back(resident, alice, copy)
    # All that lacks members is taken up at a start.
    warren.restart()
    until(lambda: [row for row in admin.get(PARTIAL_JOINS)["rooms"] if row["rounds_failed"] > 0])
    query = {"ts": unheard["origin_server_ts"], "dir": "b"}
    found = alice.get("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", room, query=query)
    assert found["origin_server_ts"] == unheard["origin_server_ts"]
    assert unheard["content"]["body"] in bodies(everything(alice, room))
    assert [row["room_id"] for row in admin.get(PARTIAL_JOINS)["rooms"]] == [room]


def test_a_stay_that_nobody_tells_of_keeps_no_other_waiting(warren, admin, alice, resident):
    copy = resident.create()
    joins = sorted(stay(resident, alice, copy)[0] for _ in range(3))
    come_back(resident, alice, copy)
    resident.requests.clear()
    # Whichever is asked for first.
    told = joins[1]
    resident.untold.discard(told)
    warren.restart()
    until(lambda: all(asked_for(resident, copy, join) for join in joins))
    # Of several, one is shown.
    assert admin.get(PARTIAL_JOINS)["total"] == 1
    resident.untold.clear()
    until_all_whole(admin)
