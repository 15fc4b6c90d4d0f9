"""Other servers give out pruned, as a redaction would leave it, what this one could not see: single events, and history. Nothing
that is known whole here is lost by that, and what was told pruned is whole once it is told whole."""

import pytest

from harness.events import id_of, redacted
from harness.omitting import Omitting
from harness.rooms import LAZY, contents, everything, joined_members, see, via

STATE = {
    "m.room.name": {"name": "The name"},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
    "org.example.custom": {"some": "thing"},
}


def furnished(resident):
    copy = resident.create()
    for type, content in STATE.items():
        resident.next(copy, type, content, state_key="")
    profile = {"membership": "join", "displayname": "The resident"}
    resident.next(copy, "m.room.member", profile, state_key=copy.user)
    return copy


def test_reading_history_takes_nothing_from_the_state(server, alice, resident):
    copy = furnished(resident)
    said = resident.place(copy, resident.message(copy, "hidden"))
    alice.join(copy.room_id, query=via(resident))
    before = contents(alice, copy.room_id)
    assert {type: before[type, ""] for type in STATE} == STATE
    answer = resident.answer_backfill

    def pruned(*asked):
        _, told = answer(*asked)
        return resident.enveloped([redacted(event) for event in told["pdus"]])

    resident.answer_backfill = pruned
    shown = {event["event_id"]: event["content"] for event in everything(alice, copy.room_id)}
    assert shown[id_of(said)] == {}, "what was not known is told as it is given"
    assert set(copy.state.values()) <= set(shown)
    assert contents(alice, copy.room_id) == before
    # Nor is it lost to who looks at the room for the first time.
    again = alice.login()
    again.sync()
    assert contents(again, copy.room_id) == before


@pytest.fixture
def omitting(network):
    peer = network.peer(kind=Omitting)
    yield peer
    peer.may_tell.set()
    peer.close()


def test_a_member_who_was_told_pruned_has_their_name_once_all_are_known(server, alice, omitting):
    """While members are missing one of them speaks, and the event of their membership is asked for by itself."""
    copy = omitting.create()
    users = [omitting.user(word) for word in ("carl", "dora")]
    for user in users:
        profile = {"membership": "join", "displayname": "Name of " + user}
        omitting.next(copy, "m.room.member", profile, sender=user, state_key=user)
    omitting.answer_event = lambda values, *_: omitting.enveloped([redacted(omitting.events[values[0]])])
    alice.join(copy.room_id, query=via(omitting))
    said = omitting.place(copy, omitting.message(copy, "hello", sender=users[0]))
    omitting.transact(server, [said])
    see(alice, copy.room_id, id_of(said), filter=LAZY)
    asked = [request.target for request in omitting.requests if "/v1/event/" in request.target]
    membership = copy.state["m.room.member", users[0]]
    assert any(membership[1:] in target for target in asked), "the membership has not come by itself"
    omitting.may_tell.set()
    alice.sync_until(lambda _: set(users) <= joined_members(alice, copy.room_id))
    names = {user: contents(alice, copy.room_id)["m.room.member", user].get("displayname") for user in users}
    assert names == {user: "Name of " + user for user in users}
