"""Joins to rooms for members of others, told in transactions: who vouches is believed by the signature of their server alone.

Server-server API, "Restricted rooms", and the authorisation rules since room version 8. The class of fault: a join that names
who vouches is taken for one that was vouched for. Those that are handed in by `send_join`: `federation/test_restricted_joins.py`.
"""

import json

import pytest

from harness.events import id_of, redacted
from harness.peer import Key, signed
from harness.rooms import joined_members, see

VOUCHING = "join_authorised_via_users_server"
INVITE = 50


@pytest.fixture
def hall(alice):
    return alice.create_room(preset="public_chat", room_version="11")


@pytest.fixture
def closed(alice, hall):
    """A room for members of the hall, into which whoever has some power may let others."""
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": hall}]}
    state = [{"type": "m.room.join_rules", "state_key": "", "content": rules}]
    levels = {"invite": INVITE}
    return alice.create_room(
        preset="private_chat", room_version="11", initial_state=state, power_level_content_override=levels
    )


@pytest.fixture
def theirs(server, honest, hall, closed, alice):
    """What the honest server has of the closed room, in which its user may let others in."""
    honest.join(server, hall)
    copy = honest.join(server, closed)
    power = alice.state(closed, "m.room.power_levels")
    power["users"][copy.user] = INVITE
    alice.set_state(closed, "m.room.power_levels", power)
    return copy


@pytest.fixture
def copy(server, hostile, hall, closed, theirs):
    """What the hostile server has of it, of whose users one came in rightly."""
    hostile.join(server, hall)
    return hostile.join(server, closed)


def join(hostile, copy, voucher):
    """The join of somebody who is not in the hall, signed by the hostile server alone."""
    mallory = hostile.user("mallory")
    content = {"membership": "join", VOUCHING: voucher}
    allowing = [*copy.allowing("m.room.member", mallory, mallory, content), copy.state["m.room.member", voucher]]
    return hostile.event(
        copy, "m.room.member", content, sender=mallory, state_key=mallory, auth_events=list(dict.fromkeys(allowing))
    )


def own_join(hostile, copy):
    """The one that came in rightly, as it was signed."""
    return hostile.events[copy.state["m.room.member", copy.user]]


def unsigned(server, honest, event, rightly):
    return event


def with_a_made_up_signature(server, honest, event, rightly):
    (key_id,) = rightly["signatures"][server.name]
    return with_signature(event, server, {key_id: "A" * 86})


def with_a_key_that_nobody_has(server, honest, event, rightly):
    return signed_like(event, server.name, Key("unheard"))


def with_another_key_under_the_right_name(server, honest, event, rightly):
    (key_id,) = rightly["signatures"][server.name]
    return signed_like(event, server.name, Key(key_id.removeprefix("ed25519:")))


def with_the_signature_of_another_join(server, honest, event, rightly):
    return with_signature(event, server, rightly["signatures"][server.name])


def signed_by_who_is_not_named(server, honest, event, rightly):
    return signed_like(event, honest.name, honest.key)


def with_signature(event, server, signature):
    return {**event, "signatures": {**event["signatures"], server.name: signature}}


def signed_like(event, name, key):
    """The event with one more signature, of whoever has that key."""
    return {**event, "signatures": signed(redacted(event), name, key)["signatures"]}


WAYS = [
    unsigned,
    with_a_made_up_signature,
    with_a_key_that_nobody_has,
    with_another_key_under_the_right_name,
    with_the_signature_of_another_join,
    signed_by_who_is_not_named,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_who_is_vouched_for_by_a_user_of_ours_who_did_not_stays_out(server, hostile, honest, copy, closed, alice, way):
    rightly = signed_join(server, hostile, copy)
    event = way(server, honest, join(hostile, copy, alice.user_id), rightly)
    # What is signed by a key that is not known may wait for it.
    assert_stays_out(server, hostile, copy, event, closed, alice, may_wait=way is with_a_key_that_nobody_has)


def signed_join(server, hostile, copy):
    """The join that came in rightly, with the signature of ours that it was given."""
    event = own_join(hostile, copy)
    return hostile.ask(server, "GET", f"/_matrix/federation/v1/event/{id_of(event)}")["pdus"][0]


def test_who_is_vouched_for_by_another_servers_user_who_did_not_stays_out(server, hostile, copy, closed, theirs, alice):
    assert_stays_out(server, hostile, copy, join(hostile, copy, theirs.user), closed, alice)


def test_who_is_vouched_for_by_one_who_may_not_stays_out(server, hostile, honest, copy, closed, theirs, alice):
    """However rightly that is signed: the user of the hostile server vouches for another one of its own."""
    assert_stays_out(server, hostile, copy, join(hostile, copy, copy.user), closed, alice)


def assert_stays_out(server, hostile, copy, event, closed, alice, may_wait=False):
    alice.sync()
    results = hostile.transact(server, [event])
    assert results.keys() == {id_of(event)} and (may_wait or results[id_of(event)]["error"])
    before = {alice.user_id, copy.user}
    assert event["sender"] not in joined_members(alice, closed) and before <= joined_members(alice, closed)
    alice.state(closed, "m.room.member", event["sender"], status=404)
    # Nor may that user say anything, and those who are in there may.
    said = hostile.message(copy, "from outside", sender=event["sender"])
    assert "error" in hostile.transact(server, [said])[id_of(said)]
    good = hostile.message(copy, "from inside")
    assert hostile.transact(server, [good]) == {id_of(good): {}}
    see(alice, closed, id_of(good))
    assert id_of(event) not in json.dumps(alice.messages(closed))


def test_who_is_vouched_for_comes_in(server, hostile, honest, copy, closed, theirs, alice):
    """The same join with the signature of who is named; and one that this server has vouched for is taken again."""
    event = signed_like(join(hostile, copy, theirs.user), honest.name, honest.key)
    assert hostile.transact(server, [event]) == {id_of(event): {}}
    assert event["sender"] in joined_members(alice, closed)
    assert alice.state(closed, "m.room.member", event["sender"])[VOUCHING] == theirs.user
    ours = signed_join(server, hostile, copy)
    assert {server.name, hostile.name} == set(ours["signatures"]) and ours["content"][VOUCHING] == alice.user_id
    assert hostile.transact(server, [ours]) == {id_of(ours): {}}
