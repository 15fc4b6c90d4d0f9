"""A server comes into a room of this one and does without its members at first: it is told which servers are there and what
allows its join, and of members those whom it needs at once (server-server API, `PUT /v2/send_join`, `omit_members`)."""

import pytest

from harness.client import unique
from harness.events import id_of
from harness.participant import Participant, path
from harness.rooms import state

MEMBERS = 20
# How many users a room is called after (client-server API, `m.heroes`).
HEROES_MAX = 5
OMITTING = "?omit_members=true"


@pytest.fixture
def crowd(base_url, nobody):
    return [nobody.register("crowd") for _ in range(MEMBERS)]


@pytest.fixture
def other(network):
    """Another server with a user in the room."""
    peer = network.peer(kind=Participant)
    yield peer
    peer.close()


def fill(server, alice, crowd, other, **body):
    """A room with all of them, who come one after the other."""
    room = alice.create_room(preset="public_chat", room_version="11", **body)
    for user in crowd:
        user.join(room)
    other.join(server, room)
    return room


def come(server, resident, room, query=OMITTING):
    """Joins, and answers with the join and what was answered."""
    join = resident.make_join(server, room)
    status, answer = resident.send_join(server, join, query)
    assert status == 200, answer
    return join, answer


def members(events):
    return {event["state_key"] for event in events if event["type"] == "m.room.member"}


def ids(events):
    return {id_of(event) for event in events}


def is_closed(events, *more):
    """Whether all that allows the events is among them."""
    known = ids([*events, *more])
    return all(known >= set(event["auth_events"]) for event in [*events, *more])


def is_told_all_afterwards(server, resident, client, room, join, everybody):
    """Whoever came in asks for the state before their join, and is told all of it, in both forms."""
    whole = {event["event_id"] for event in state(client, room)} - {id_of(join)}
    told = resident.ask(server, "GET", path("v1/state/{}?event_id={}", room, id_of(join)))
    assert members(told["pdus"]) == everybody and ids(told["pdus"]) == whole
    assert is_closed([*told["pdus"], *told["auth_chain"]])
    named = resident.ask(server, "GET", path("v1/state_ids/{}?event_id={}", room, id_of(join)))
    assert set(named["pdu_ids"]) == whole and len(named["pdu_ids"]) == len(whole)
    assert set(named["auth_chain_ids"]) == ids(told["auth_chain"])


def test_a_room_with_a_name_is_told_without_members(server, alice, crowd, other, resident):
    power = {"users": {alice.user_id: 100, crowd[7].user_id: 50}}
    room = fill(server, alice, crowd, other, name="The burrow", power_level_content_override=power)
    # What they set is allowed by their own membership, which is told for that.
    crowd[7].set_state(room, "m.room.topic", {"topic": "of a member"})
    join, answer = come(server, resident, room)
    assert answer["members_omitted"] is True
    assert sorted(answer["servers_in_room"]) == sorted([server.name, other.name])
    assert members(answer["state"]) == set()
    others = {event["event_id"] for event in state(alice, room) if event["type"] != "m.room.member"}
    assert ids(answer["state"]) == others and len(answer["state"]) == len(others)
    assert is_closed([*answer["state"], *answer["auth_chain"]], join)
    assert members(answer["auth_chain"]) == {alice.user_id, crowd[7].user_id}
    everybody = {alice.user_id, other.user(), *(user.user_id for user in crowd)}
    is_told_all_afterwards(server, resident, alice, room, join, everybody)


def test_an_alias_is_a_name(server, alice, crowd, other, resident):
    room = fill(server, alice, crowd, other, room_alias_name=unique("burrow"))
    assert alice.state(room, "m.room.canonical_alias")["alias"]
    _, answer = come(server, resident, room)
    assert answer["members_omitted"] is True and members(answer["state"]) == set()


def test_of_a_room_without_a_name_those_are_told_whom_it_is_called_after(server, alice, crowd, other, resident):
    room = fill(server, alice, crowd, other)
    join, answer = come(server, resident, room)
    assert answer["members_omitted"] is True
    assert sorted(answer["servers_in_room"]) == sorted([server.name, other.name])
    first = {alice.user_id, *(user.user_id for user in crowd[: HEROES_MAX - 1])}
    assert members(answer["state"]) == first
    assert members(answer["auth_chain"]) <= first
    assert is_closed([*answer["state"], *answer["auth_chain"]], join)
    everybody = {alice.user_id, other.user(), *(user.user_id for user in crowd)}
    is_told_all_afterwards(server, resident, alice, room, join, everybody)


def test_who_was_invited_is_told_what_allows_them_in(server, alice, crowd, other, resident):
    room = fill(server, alice, crowd, other, name="The burrow")
    alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
    alice.post("rooms/{roomId}/invite", room, json={"user_id": resident.user()})
    join, answer = come(server, resident, room)
    told = [*answer["state"], *answer["auth_chain"]]
    assert answer["members_omitted"] is True and is_closed(told, join)
    assert members(told) == {alice.user_id, resident.user()}
    (invite,) = [event for event in told if event.get("state_key") == resident.user()]
    assert invite["content"]["membership"] == "invite" and id_of(invite) in join["auth_events"]


def test_the_servers_are_those_before_the_join(server, alice, crowd, other, resident):
    room = fill(server, alice, crowd, other, name="The burrow")
    copy = other.copies[room]
    other.leave(server, copy)
    _, answer = come(server, resident, room)
    assert answer["servers_in_room"] == [server.name], "nobody is there of the other any more"
    join = resident.make_join(server, room, resident.user("second"))
    status, answer = resident.send_join(server, join, OMITTING)
    assert status == 200
    assert sorted(answer["servers_in_room"]) == sorted([server.name, resident.name])


@pytest.mark.parametrize("query", ["", "?omit_members=false"])
def test_who_does_not_ask_for_less_is_told_everything(server, alice, crowd, other, resident, query):
    room = fill(server, alice, crowd, other, name="The burrow")
    join, answer = come(server, resident, room, query)
    assert answer.get("members_omitted", False) is False
    assert members(answer["state"]) == {alice.user_id, other.user(), *(user.user_id for user in crowd)}
    assert ids(answer["state"]) == {event["event_id"] for event in state(alice, room)} - {id_of(join)}
    assert is_closed([*answer["state"], *answer["auth_chain"]], join)
