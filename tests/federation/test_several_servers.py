"""Of several servers that may help into a room, one that is of no help does not matter: the next one is asked."""

import threading

import pytest

from harness.client import unique
from harness.participant import VERSION, Participant
from harness.rooms import invited, knocked, left, see


class Liar(Participant):
    """Offers a template for something else than it was asked for."""

    def answer_make_join(self, values, _query, _body):
        return self.lie(*values, "leave")

    def answer_make_knock(self, values, _query, _body):
        return self.lie(*values, "join")

    def lie(self, room_id, user_id, membership):
        event = {
            "room_id": room_id,
            "type": "m.room.member",
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": membership},
            "prev_events": [],
            "auth_events": [],
            "depth": 1,
            "origin_server_ts": 1,
        }
        return 200, {"room_version": VERSION, "event": event}


def dead(network):
    """Was there once."""
    peer = network.peer(f"{unique('dead')}.test")
    peer.close()
    return peer


def ignorant(network):
    """Is in no room."""
    return network.peer(kind=Participant)


def lying(network):
    return network.peer(kind=Liar)


@pytest.fixture(params=[dead, ignorant, lying], ids=lambda make: make.__name__)
def useless(request, network):
    return request.param(network)


def was_tried(network, peer):
    """Whether it was asked; of one that is gone, whether it was looked for."""
    looked_for = [name for name, _ in network.names.asked]
    return bool(peer.requests) or peer.name.split(":")[0] in looked_for


def all_of(*servers):
    names = [server.name for server in servers]
    return {"via": names, "server_name": names}


def test_a_room_is_joined_by_way_of_the_second(network, alice, resident, useless):
    copy = resident.create()
    alice.join(copy.room_id, query=all_of(useless, resident))
    assert was_tried(network, useless)
    assert resident.events[copy.state["m.room.member", alice.user_id]]["content"]["membership"] == "join"
    see(alice, copy.room_id, alice.send(copy.room_id, "hello"))


def test_it_is_knocked_by_way_of_the_second(network, alice, resident, useless):
    copy = resident.create("knock")
    alice.post("knock/{roomIdOrAlias}", copy.room_id, query=all_of(useless, resident))
    assert was_tried(network, useless)
    assert resident.events[copy.state["m.room.member", alice.user_id]]["content"]["membership"] == "knock"
    alice.sync_until(lambda answer: knocked(answer, copy.room_id))


def is_gone(inviter):
    inviter.closes_all = True


def hangs(inviter):
    """Until long after the user has been answered."""
    over = threading.Event()
    inviter.answer_make_leave = lambda *_: (503, {"errcode": "M_UNKNOWN", "error": f"{over.wait(30)}"})


def refuses(inviter):
    inviter.answer_make_leave = lambda *_: (403, {"errcode": "M_FORBIDDEN", "error": "No"})


def lies(inviter):
    inviter.answer_make_leave = lambda values, *_: inviter.template(*values, "join")


@pytest.mark.parametrize("becomes_useless", [is_gone, hangs, refuses, lies])
def test_an_invite_is_declined_by_way_of_the_second(server, alice, resident, other, becomes_useless):
    """Where the server that invites is of no help, the room is told by way of the one that it is called after, as who accepts is let in
    by that one."""
    copy, host, other.copies = resident.create("invite"), other.user("host"), resident.copies
    other.come(copy, host)
    alice.sync()
    status, answer = other.invite(server, copy, alice.user_id, sender=host)
    assert status == 200, answer
    other.take(copy, answer["event"])
    alice.sync_until(lambda answer: invited(answer, copy.room_id))
    becomes_useless(other)
    other.requests.clear()
    alice.leave(copy.room_id)
    alice.sync_until(lambda answer: left(answer, copy.room_id))
    asked = [*other.lost, *(request.target for request in other.requests)]
    assert any("/make_leave/" in target for target in asked), "the one that invites is asked first"
    assert resident.versions_asked("make_leave") == ["v1"] and resident.versions_asked("send_leave") == ["v2"]
    assert resident.events[copy.state["m.room.member", alice.user_id]]["content"]["membership"] == "leave"


def test_a_knock_is_taken_back_by_way_of_the_second(server, alice, resident, other):
    """The same where the server is gone that let the knock in."""
    copy, other.copies = resident.create("knock"), resident.copies
    alice.post("knock/{roomIdOrAlias}", copy.room_id, query=all_of(other, resident))
    assert other.versions_asked("send_knock") == ["v1"]
    alice.sync_until(lambda answer: knocked(answer, copy.room_id))
    is_gone(other)
    alice.leave(copy.room_id)
    alice.sync_until(lambda answer: left(answer, copy.room_id))
    assert resident.events[copy.state["m.room.member", alice.user_id]]["content"]["membership"] == "leave"


def test_where_nobody_helps_it_is_told_what_says_most(network, alice, resident):
    """What a server says of the room, rather than that another is not there."""
    copy = resident.create()
    resident.answer_make_join = lambda *_: (403, {"errcode": "M_FORBIDDEN", "error": "You are not on the list"})
    answer = alice.join(copy.room_id, query=all_of(dead(network), resident, dead(network)), status=403)
    assert (answer["errcode"], answer["error"]) == ("M_FORBIDDEN", "You are not on the list")
