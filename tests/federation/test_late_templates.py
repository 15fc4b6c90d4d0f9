"""The last user of this server leaves a room, and somebody comes in again by a server that is only just being told: who left stays
out, whatever that server goes by, and nothing that it goes by is merged or fetched in vain."""

import concurrent.futures
import json
import threading
import urllib.parse

import pytest

from harness.events import id_of
from harness.participant import SECONDS_MAX, Participant
from harness.rooms import joined_members, via


class Late(Participant):
    """Takes a transaction with which somebody leaves only when it may, and goes by it then if it `follows`: a message of its own is
    what its rooms end with."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.is_told, self.may_take, self.has_given = (threading.Event() for _ in range(3))
        self.follows = False

    def answer_send(self, values, query, body):
        leaves = [event for event in body["pdus"] if event["content"].get("membership") == "leave"]
        if leaves:
            self.is_told.set()
            self.may_take.wait(SECONDS_MAX)
        for event in leaves if self.follows else []:
            copy = self.copies[event["room_id"]]
            self.take(copy, event)
            self.place(copy, self.message(copy, "somebody has left"))
        return super().answer_send(values, query, body)

    def answer_make_join(self, values, query, body):
        status, template = super().answer_make_join(values, query, body)
        self.before_given()
        return status, self.given(template)

    def before_given(self):
        """What happens between a template's making and its arrival."""

    def given(self, template):
        yield json.dumps(template).encode()
        self.has_given.set()

    def templates(self, user):
        """How often a template was asked for."""
        targets = [urllib.parse.unquote(request.target) for request in self.requests]
        return len([target for target in targets if "/make_join/" in target and user.user_id in target])

    def omissions(self, user):
        """Of each join that was handed in, whether it was asked for without the other members."""
        joins = [request for request in self.requests if "/v2/send_join/" in request.target]
        joins = [request for request in joins if json.loads(request.body)["sender"] == user.user_id]
        return ["omit_members=true" in request.target for request in joins]

    def close(self):
        self.may_take.set()
        super().close()


@pytest.fixture
def resident_kind():
    return Late


def gone(resident, user):
    """A room that the user has left, which the resident is being told; it has gone on there."""
    copy = resident.create()
    user.join(copy.room_id, query=via(resident))
    user.leave(copy.room_id)
    assert resident.is_told.wait(SECONDS_MAX)
    resident.place(copy, resident.message(copy, "missed"))
    resident.has_given.clear()
    return copy


def come_in(resident, copy, user, bystander):
    """Lets the user come in by the resident, which takes what it is being told after it has given a template."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        join = pool.submit(user.join, copy.room_id, query=via(resident))
        assert resident.has_given.wait(SECONDS_MAX)
        # What comes of the template is known when all this has been answered.
        for _ in range(10):
            bystander.sync()
        resident.may_take.set()
        join.result()


def assert_out(user, room, witness):
    assert room not in user.get("joined_rooms")["joined_rooms"]
    assert room not in user.sync().get("rooms", {}).get("join", {})
    assert user.user_id not in joined_members(witness, room)


def followed_by_next(resident, room, user):
    """What the next event that the user sends follows."""
    own = user.send(room, "here again")
    resident.until(lambda: own in map(id_of, resident.pdus))
    return set(resident.events[own]["prev_events"])


def leave_of(resident, user):
    """The event with which the user left, as the resident was told."""
    of_user = [event for event in resident.pdus if event.get("state_key") == user.user_id]
    (leave,) = {id_of(event) for event in of_user if event["content"]["membership"] == "leave"}
    return leave


def test_who_left_stays_out_though_the_template_is_older(alice, bob, carol, resident):
    """The resident takes what it is told between its template and the arrival of that."""
    elsewhere = resident.create().room_id
    carol.join(elsewhere, query=via(resident))
    copy = gone(resident, bob)
    carol.send(elsewhere, "behind")

    def take():
        resident.may_take.set()
        # That it has taken the one is noted before it is sent the next.
        resident.until(lambda: "behind" in resident.bodies)

    resident.before_given = take
    alice.join(copy.room_id, query=via(resident))
    assert_out(bob, copy.room_id, alice)
    # The state is merged with what the template does not follow.
    assert resident.omissions(alice) == [False]
    join = copy.state["m.room.member", alice.user_id]
    assert followed_by_next(resident, copy.room_id, alice) == {join, leave_of(resident, bob)}


@pytest.mark.parametrize("follows", [False, True], ids=["goes by it later", "follows it by way of another"])
def test_another_template_is_asked_for_when_a_server_has_been_told(alice, bob, carol, resident, follows):
    resident.follows = follows
    copy = gone(resident, bob)
    come_in(resident, copy, alice, carol)
    assert resident.templates(alice) == 2
    assert resident.omissions(alice) == [False]
    assert_out(bob, copy.room_id, alice)
    # What the join follows is no end of the room.
    ends = {copy.state["m.room.member", alice.user_id]}
    if not follows:
        ends.add(leave_of(resident, bob))
    assert followed_by_next(resident, copy.room_id, alice) == ends


def test_who_comes_back_needs_no_members_for_how_they_left(alice, carol, resident):
    """The join names what it is allowed by, which is how they left."""
    resident.follows = True
    copy = gone(resident, alice)
    come_in(resident, copy, alice, carol)
    assert resident.templates(alice) == 3
    assert resident.omissions(alice) == [True, True]
    assert copy.room_id in alice.get("joined_rooms")["joined_rooms"]
    join = copy.state["m.room.member", alice.user_id]
    assert followed_by_next(resident, copy.room_id, alice) == {join}
