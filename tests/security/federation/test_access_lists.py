"""A server that a room's access list shuts out gets nothing of the room and brings nothing in, however its name is written.

The class of fault: case and ports as ways around an access list.
"""

import json
import threading
import time

import pytest

from harness.client import Client, joined, unique
from harness.events import id_of
from harness.participant import path
from harness.peer import now_ms


def shut_out(alice, room, hostile, deny, **more):
    content = {"allow": ["*"], "deny": deny, **more}
    return alice.set_state(room, "m.room.server_acl", content)


def host(peer):
    return peer.name.rsplit(":", 1)[0]


WAYS = {
    "as it is": lambda name: [name],
    "in capitals": lambda name: [name.upper()],
    "by wildcards": lambda name: ["*" + name[3:-1].upper() + "?"],
}


@pytest.mark.parametrize("way", WAYS)
def test_who_is_shut_out_gets_nothing_and_brings_nothing(server, hostile, copy, alice, bob, room, way):
    alice.sync()
    event_id = alice.send(room, "secret")
    shut_out(alice, room, hostile, WAYS[way](host(hostile)))
    user, minion = hostile.user(), hostile.user("minion")
    member = hostile.event(copy, "m.room.member", {"membership": "join"}, sender=minion, state_key=minion)
    leave = hostile.event(copy, "m.room.member", {"membership": "leave"}, state_key=user)
    knock = hostile.event(copy, "m.room.member", {"membership": "knock"}, sender=minion, state_key=minion)
    invite = hostile.event(copy, "m.room.member", {"membership": "invite"}, state_key=bob.user_id)
    body = {"room_version": "11", "event": invite, "invite_room_state": []}
    rows = [
        ("GET", "v1/make_join/{}/{}?ver=11", [room, minion], None),
        ("GET", "v1/make_leave/{}/{}", [room, user], None),
        ("GET", "v1/make_knock/{}/{}?ver=11", [room, minion], None),
        ("PUT", "v1/send_join/{}/{}", [room, id_of(member)], member),
        ("PUT", "v2/send_join/{}/{}", [room, id_of(member)], member),
        ("PUT", "v1/send_leave/{}/{}", [room, id_of(leave)], leave),
        ("PUT", "v2/send_leave/{}/{}", [room, id_of(leave)], leave),
        ("PUT", "v1/send_knock/{}/{}", [room, id_of(knock)], knock),
        ("PUT", "v2/invite/{}/{}", [room, id_of(invite)], body),
        ("GET", "v1/state/{}?event_id={}", [room, event_id], None),
        ("GET", "v1/state_ids/{}?event_id={}", [room, event_id], None),
        ("GET", "v1/backfill/{}?limit=10&v={}", [room, event_id], None),
        ("GET", "v1/event_auth/{}/{}", [room, event_id], None),
        ("POST", "v1/get_missing_events/{}", [room], {"earliest_events": [], "latest_events": [event_id]}),
    ]
    for method, template, values, content in rows:
        status, answer = hostile.send(server, method, path(template, *values), content)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), (template, answer)
    status, answer = hostile.send(server, "GET", path("v1/event/{}", event_id))
    assert status in (403, 404) and "secret" not in str(answer)
    message = hostile.message(copy, "let me in")
    assert "error" in hostile.transact(server, [message])[id_of(message)]
    read = {"event_ids": [event_id], "data": {"ts": now_ms()}}
    edus = [
        {"edu_type": "m.typing", "content": {"room_id": room, "user_id": user, "typing": True}},
        {"edu_type": "m.receipt", "content": {room: {"m.read": {user: read}}}},
    ]
    hostile.transact(server, edus=edus)
    answer = joined(alice.sync(), room)
    assert user not in json.dumps(answer.get("ephemeral")) and "let me in" not in json.dumps(answer)


def test_an_invite_as_it_was_made_before_is_shut_out_too(server, hostile, alice, bob):
    """In rooms of the first versions, of which alone such an invite can be."""
    room = alice.create_room(preset="public_chat", room_version="1")

    def invite():
        event = hostile.old_invite(room, bob.user_id)
        return hostile.send(server, "PUT", path("v1/invite/{}/{}", room, event["event_id"]), event)

    status, answer = invite()
    assert status == 200, answer
    shut_out(alice, room, hostile, [host(hostile).upper()])
    status, answer = invite()
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer


def test_a_broken_list_lets_nobody_in_and_can_be_mended(server, hostile, copy, alice, room):
    """Specification: what has no `allow` allows nobody; its own users can still change it."""
    power = alice.state(room, "m.room.power_levels")
    power["users"][hostile.user()] = 100
    event_id = alice.set_state(room, "m.room.power_levels", power)
    hostile.until(lambda: any(id_of(event) == event_id for event in hostile.pdus))
    hostile.place(copy, hostile.events[event_id])
    broken = hostile.next(copy, "m.room.server_acl", {"deny": 5, "allow": "*"}, state_key="")
    assert hostile.transact(server, [broken]) == {id_of(broken): {}}
    message = hostile.message(copy, "let me in")
    assert "error" in hostile.transact(server, [message])[id_of(message)]
    event_id = shut_out(alice, room, hostile, [])
    hostile.until(lambda: any(id_of(event) == event_id for event in hostile.pdus))
    assert hostile.transact(server, [message]) == {id_of(message): {}}


def test_others_are_not_shut_out_by_what_is_alike(server, hostile, copy, alice, room):
    name = host(hostile)
    shut_out(alice, room, hostile, [f"x{name}", f"{name}x", f"*.{name}", name[1:], f"{name}:{hostile.port}"])
    message = hostile.message(copy, "an honest one")
    assert hostile.transact(server, [message]) == {id_of(message): {}}


# Entries of a list that is nearly as long as an event may be, and receipts that come in a room with it.
ENTRIES, READERS, PARTS = 9_000, 200, 100
# Reading the list for each of them would take far longer.
SECONDS_MAX = 8


def test_a_long_list_makes_nobody_wait(server, hostile, copy, alice, room):
    """However many receipts come, and of whatever events."""
    readers, member = [hostile.user(f"reader{number}") for number in range(READERS)], {"membership": "join"}
    for first in range(0, READERS, 50):
        some = readers[first : first + 50]
        joins = [hostile.next(copy, "m.room.member", member, sender=user, state_key=user) for user in some]
        assert hostile.transact(server, joins) == {id_of(join): {} for join in joins}
    deny = [f"{number:x}" for number in range(ENTRIES)]
    alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": deny})
    writer = Client(server.base_url).register(unique("writer"))
    elsewhere = writer.create_room()
    read = {user: {"event_ids": ["$unknown"], "data": {"ts": now_ms()}} for user in readers}
    receipts = [{"edu_type": "m.receipt", "content": {room: {"m.read": read}}}] * PARTS
    begin = time.monotonic()
    flood = threading.Thread(target=hostile.transact, args=(server,), kwargs={"edus": receipts})
    flood.start()
    while flood.is_alive():
        begin_of_one = time.monotonic()
        writer.send(elsewhere, "meanwhile")
        assert time.monotonic() - begin_of_one < SECONDS_MAX
    flood.join()
    assert time.monotonic() - begin < SECONDS_MAX
