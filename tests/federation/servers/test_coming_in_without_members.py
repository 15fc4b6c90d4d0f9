"""A server comes into a large room of ours without its members, talks there before it knows them, and knows them all then."""

import pytest

from harness.client import bodies
from harness.federated import Gated
from harness.rooms import LAZY, joined_members, see, state_ids, until_joined, via
from harness.senders import room_messages
from harness.server import sound

MEMBERS = 20


@pytest.fixture
def here(authority, there, tmp_path):
    """A Warren with gates between it and the other server."""
    with sound(Gated(tmp_path / "here", authority, there)) as server:
        yield server


def was_partial(gate, user):
    """Whether the one join of the user was answered without the members of the room."""
    ((request, answer),) = gate.answers_of("send_join")
    omits = "omit_members=true" in request.target.partition("?")[2]
    members = {event["state_key"] for event in answer["state"] if event["type"] == "m.room.member"}
    return omits and answer["members_omitted"] and answer["event"]["sender"] == user.user_id and not members


@pytest.mark.parametrize("restarts", [False, True], ids=["we stay", "we are killed meanwhile"])
def test_who_came_without_members_talks_and_then_knows_them(here, there, alice, bob, restarts):
    others = [here.client(here.base_url).register("other") for _ in range(MEMBERS - 1)]
    room = alice.create_room(preset="public_chat", room_version="10", name="Many")
    for other in others:
        other.join(room)
    gate = here.inward
    questions = gate.hold_questions("state_ids", "state")
    bob.join(room, query=via(here))
    assert was_partial(gate, bob)
    questions.until_there()
    if restarts:
        here.kill()
        here.start()
    # Both ways, while the other server knows nobody but itself and us.
    see(alice, room, bob.send(room, "early"))
    see(bob, room, alice.send(room, "welcome"), filter=LAZY)
    see(others[0], room, bob.send(room, "thank you"))
    assert not gate.answers_of("state_ids") and not gate.answers_of("state"), "it was held all the time"
    if restarts:
        # What the killed one was asked is lost with it, and has to be asked again.
        gate.held_questions.remove(questions)
        questions.lose()
    else:
        questions.pass_on()
    until_joined(bob, room, alice, *others)
    assert joined_members(bob, room) == {user.user_id for user in (alice, bob, *others)}
    bob.sync_until(lambda _: state_ids(bob, room) == state_ids(alice, room))
    see(bob, room, others[-1].send(room, "hello from all of us"))
    said = ["early", "welcome", "thank you", "hello from all of us"]
    assert bodies(room_messages(bob, room)) == bodies(room_messages(alice, room)) == said
