"""Users of this server who are removed elsewhere, where no leave in the timeline follows their join: each is told of their own
stay, and of nothing later."""

import json

import pytest

from harness.client import address, bodies
from harness.events import id_of
from harness.rooms import everything, see
from harness.senders import room_messages
from harness.waiting import until

WITH_LEFT = json.dumps({"room": {"include_leave": True}})
# What comes after the leave.
SECRET = "not for who has left"


@pytest.fixture
def room(alice):
    state = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    return alice.create_room(preset="private_chat", room_version="11", initial_state=[state])


@pytest.fixture
def copy(warren, alice, resident, room):
    """What the resident, whose user may do as Alice may, has of the room."""
    alice.post("rooms/{roomId}/invite", room, json={"user_id": resident.user()})
    copy = resident.join(warren, room)
    power = alice.state(room, "m.room.power_levels")
    power["users"][copy.user] = 100
    alice.set_state(room, "m.room.power_levels", power)
    return resident.catch_up(warren, copy)


def kick(resident, copy, user):
    return resident.event(copy, "m.room.member", {"membership": "leave"}, state_key=user.user_id)


def own_stay(user, room):
    """What a user who is out finds said in the room, oldest first. They are told of nothing later, however they ask."""
    answers = [anew(user, room)]
    for name in ("state", "members"):
        response = user.send_raw("GET", address("rooms/{roomId}/", room) + name)
        assert response.status_code == 200, response.text
        answers.append(response.json())
    answers.append(everything(user, room))
    assert all(SECRET not in json.dumps(answer) for answer in answers)
    return bodies(answers[-1])


def anew(user, room):
    """What a new device of a user who is out is told of the room."""
    return user.login().get("sync", query={"filter": WITH_LEFT})["rooms"]["leave"][room]


def test_a_kick_that_lies_in_a_gap(warren, alice, bob, resident, room, copy):
    alice.invite(room, bob)
    bob.join(room)
    bob.send(room, "mine")
    bob.sync()
    copy = resident.catch_up(warren, copy)
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    resident.place(copy, resident.message(copy, "before"))
    resident.place(copy, kick(resident, copy, bob))
    resident.next(copy, "m.room.topic", {"topic": SECRET}, state_key="")
    resident.next(copy, "org.example.custom", {"secret": SECRET}, state_key="")
    member = {"membership": "invite", "displayname": SECRET}
    resident.next(copy, "m.room.member", member, state_key=resident.user("newcomer"))
    last = resident.place(copy, resident.message(copy, SECRET))
    resident.transact(warren, [last])
    see(alice, room, id_of(last))
    left = bob.sync()["rooms"]["leave"][room]
    assert left["timeline"]["events"][-1]["content"] == {"membership": "leave"}
    assert SECRET not in json.dumps(left)
    assert bodies(anew(bob, room)["timeline"]["events"]) == ["mine"]
    # As he pages back, what was said before the kick is asked for, and is his.
    assert own_stay(bob, room) == ["mine", "before"]
    assert bodies(room_messages(alice, room)) == ["mine", "before", SECRET]
    assert own_stay(bob, room) == ["mine", "before"]


def test_a_kick_that_is_adopted(warren, alice, bob, admin, resident, room, copy):
    alice.invite(room, bob)
    bob.join(room)
    bob.send(room, "mine")
    alice.send(room, "and more")
    copy = resident.catch_up(warren, copy)
    kicked = kick(resident, copy, bob)
    resident.before[copy.ends[0]]["m.room.member", bob.user_id] = id_of(kicked)
    target = address("/_warren/admin/v1/rooms/{roomId}/resynchronise", room)
    assert admin.send_raw("POST", target, json={"servers": []}).status_code == 200
    until(lambda: admin.send_raw("GET", target).json()["status"] == "complete")
    assert alice.state(room, "m.room.member", bob.user_id)["membership"] == "leave"
    alice.send(room, SECRET)
    # By that state he was out before more was said.
    assert own_stay(bob, room) == ["mine"]


def test_a_kick_of_the_invite_that_wins_against_the_join(warren, alice, bob, resident, room, copy):
    alice.invite(room, bob)
    copy = resident.catch_up(warren, copy)
    kicked = kick(resident, copy, bob)
    bob.join(room)
    bob.send(room, "mine")
    resident.transact(warren, [kicked])
    alice.sync_until(lambda _: alice.state(room, "m.room.member", bob.user_id)["membership"] == "leave")
    alice.send(room, SECRET)
    assert own_stay(bob, room) == ["mine"]
