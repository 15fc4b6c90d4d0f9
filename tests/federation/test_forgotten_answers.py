"""Users decline invites, and take knocks back, while nobody of the room can be told, and forget the rooms: what they have
answered stands, and the room hears of it once another of them is there."""

import pytest

from harness.rooms import invited, knocked, members, via

REFUSED = 403, {"errcode": "M_FORBIDDEN", "error": "Not here"}


def invite(server, resident, copy, user):
    """Invites a user of a server that is not in the room, which the room hears of."""
    status, answer = resident.invite(server, copy, user.user_id)
    assert status == 200, answer
    resident.take(copy, answer["event"])
    user.sync_until(lambda answer: invited(answer, copy.room_id))


def is_shown(answer, room):
    return bool(invited(answer, room) or knocked(answer, room))


@pytest.mark.parametrize("is_forgotten", [False, True])
@pytest.mark.parametrize("membership", ["invite", "knock"])
def test_what_was_answered_is_not_asked_again(server, alice, bob, resident, membership, is_forgotten):
    copy = resident.create("knock")
    room = copy.room_id
    if membership == "invite":
        invite(server, resident, copy, alice)
    else:
        alice.post("knock/{roomIdOrAlias}", room, query=via(resident), json={})
        alice.sync_until(lambda answer: knocked(answer, room))
    resident.answer_make_leave = lambda *_: REFUSED
    alice.leave(room)
    if is_forgotten:
        alice.post("rooms/{roomId}/forget", room)
    alice.sync()
    since = alice.since
    assert resident.events[copy.state["m.room.member", alice.user_id]]["content"]["membership"] == membership
    invite(server, resident, copy, bob)
    bob.join(room, query=via(resident))
    is_answer = lambda event: event.get("state_key") == alice.user_id and event["content"]["membership"] == "leave"
    resident.until(lambda: any(map(is_answer, resident.pdus)))
    (answer,) = filter(is_answer, resident.pdus)
    assert answer["sender"] == alice.user_id
    assert members(bob, room, "leave") == {alice.user_id}
    for alice.since in (since, None):
        assert not is_shown(alice.sync(), room)
    # Asked anew, the user is shown that.
    alice.since = since
    resident.take(copy, answer)
    again = resident.next(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    resident.transact(server, [again])
    alice.sync_until(lambda answer: invited(answer, room))
