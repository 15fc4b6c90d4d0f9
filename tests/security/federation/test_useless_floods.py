"""However much of no use a server sends, and however new all of it is: neither the database nor the memory grows by it."""

import contextlib
import json
import secrets

import pytest

from harness.client import Client
from harness.events import id_of
from harness.metrics import memory_of
from harness.peer import now_ms
from harness.rooms import see
from harness.server import sound


@pytest.fixture
def lone(network, tmp_path):
    """A server of its own, whose database nobody else writes to."""
    with sound(network.server(tmp_path)) as server:
        yield server


def flood(server, hostile, rounds, make):
    for number in range(rounds):
        pdus, edus = make(number)
        hostile.transact(server, pdus, edus)


# Rounds of each flood, and what the database may grow by: nothing in it may follow their number.
FLOOD = 300
GROWTH_BYTES_MAX = 3_000_000
PADDING = "x" * 2_000
# Bytes of denied events that are kept of a room for servers that have no user in it.
DENIED_BYTES_MAX = 8 << 20
# Rounds before the server is measured, and the bytes that it may need beside what it needed until then: fewer than come in
# any of the floods.
ROUNDS_BEFORE, MEMORY_BYTES_MAX = 30, 8 << 20


@contextlib.contextmanager
def bounded(server):
    """Neither the database nor the server in memory grows by what comes meanwhile."""
    disk, memory = server.disk(), memory_of(server)
    yield
    grown = server.disk() - disk, memory_of(server) - memory
    assert grown[0] < GROWTH_BYTES_MAX and grown[1] < MEMORY_BYTES_MAX, grown


def bad_pdus(hostile, copy):
    """Events that are refused, ever new ones."""
    def make(number):
        events = [hostile.message(copy, f"{number} {at} {PADDING}") for at in range(20)]
        hostile.events.clear()
        return [{**event, "signatures": {}} for event in events], []

    return make


def orphans(hostile, copy):
    """Events that wait for what nobody has, ever new ones."""
    def make(number):
        names = [f"${number:020}{at:023}" for at in range(20)]
        return [hostile.message(copy, PADDING, prev_events=[name], auth_events=[name]) for name in names], []

    return make


def edus_of(number, hostile, alice, room):
    user = hostile.user()
    text = f"{number} {PADDING}"[:200]
    direct = {"sender": user, "type": text, "message_id": text, "messages": {f"@no{number}:x.test": {text: {"a": text}}}}
    nobody = {**direct, "message_id": f"b{text}", "messages": {alice.user_id: {text: {"a": text}}}}
    device = {"user_id": hostile.user(f"u{number}"), "device_id": text, "stream_id": number, "prev_id": []}
    return [
        ("m.direct_to_device", direct),
        ("m.direct_to_device", nobody),
        ("m.device_list_update", device),
        ("m.signing_key_update", {"user_id": hostile.user(f"u{number}")}),
        ("m.presence", {"push": [{"user_id": hostile.user(f"u{number}"), "presence": "online", "status_msg": text}]}),
        ("m.receipt", {room: {"m.read": {user: {"event_ids": [f"${text}"], "data": {"ts": number}}}}}),
        ("m.typing", {"room_id": f"!{text}:x.test", "user_id": user, "typing": True}),
        (text, {"a": text}),
    ]


def useless_edus(hostile, copy, alice):
    def make(number):
        told = [edu for at in range(10) for edu in edus_of(number * 10 + at, hostile, alice, copy.room_id)]
        return [], [{"edu_type": kind, "content": content} for kind, content in told]

    return make


def test_a_stream_of_bad_events_does_not_grow_the_database(lone, hostile):
    alice = Client(lone.base_url).register("alice")
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = hostile.join(lone, room)
    make = bad_pdus(hostile, copy)
    flood(lone, hostile, ROUNDS_BEFORE, make)
    with bounded(lone):
        flood(lone, hostile, FLOOD, lambda number: make(1_000 + number))


@pytest.mark.parametrize("knows_of_the_ban", [False, True], ids=["soft-failed", "rejected"])
def test_what_is_denied_of_who_is_banned_fills_no_disk(lone, hostile, knows_of_the_ban):
    """It is rightly signed, names what is known, and comes too late, or is not allowed."""
    alice = Client(lone.base_url).register("alice")
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = hostile.join(lone, room)
    alice.post("rooms/{roomId}/ban", room, json={"user_id": copy.user})

    def bans():
        return [event for event in hostile.pdus if event["content"].get("membership") == "ban"]

    hostile.until(bans)
    if knows_of_the_ban:
        hostile.place(copy, bans()[0])
    before, last = lone.disk(), {}
    # Three times of what is kept, that cannot be made smaller.
    for number in range(3 * DENIED_BYTES_MAX // (20 * 30_000)):
        events = [hostile.message(copy, secrets.token_hex(15_000)) for _ in range(20)]
        hostile.events.clear()
        hostile.before.clear()
        last = hostile.transact(lone, events)
        assert last.keys() == {id_of(event) for event in events}
    assert all("no user in the room" in result["error"] for result in last.values())
    assert lone.disk() - before < 2 * DENIED_BYTES_MAX
    see(alice, room, alice.send(room, "and on"))


def test_events_that_wait_are_bounded(lone, hostile):
    """A thousand in a room, of which a quarter from one server; the others are refused with the reason."""
    alice = Client(lone.base_url).register("alice")
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = hostile.join(lone, room)
    hostile.answer_get_missing_events = lambda *_: (404, {"errcode": "M_NOT_FOUND", "error": "no"})
    make, kept = orphans(hostile, copy), 0
    for number in range(ROUNDS_BEFORE):
        pdus, _ = make(number)
        results = hostile.transact(lone, pdus)
        assert len(results) == len(pdus)
        kept += sum(1 for result in results.values() if "error" not in result)
    assert 0 < kept <= 250
    assert all(result["error"] for result in results.values()), "none is taken any more, and it is said why"
    before = lone.disk()
    # So many rounds, until caches hold what they may.
    flood(lone, hostile, FLOOD, lambda number: make(1_000 + number))
    with bounded(lone):
        flood(lone, hostile, FLOOD, lambda number: make(2_000 + number))
    assert lone.disk() - before < GROWTH_BYTES_MAX
    see(alice, room, alice.send(room, "and on"))


def test_a_stream_of_useless_edus_does_not_grow_the_database(lone, hostile):
    alice = Client(lone.base_url).register("alice")
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = hostile.join(lone, room)
    make = useless_edus(hostile, copy, alice)
    flood(lone, hostile, ROUNDS_BEFORE, make)
    with bounded(lone):
        flood(lone, hostile, FLOOD, lambda number: make(1_000 + number))


# Users of whom each part tells, none of whom was heard of before: hundreds of thousands in all.
USERS_IN_PART, PARTS = 50, 20


def ever_new_users(hostile, copy):
    """They are present, type, have read something and have devices, and are in no room."""
    def make(number):
        first = number * PARTS * USERS_IN_PART
        users = [hostile.user(f"new{first + at}") for at in range(PARTS * USERS_IN_PART)]
        edus = []
        for at in range(0, len(users), USERS_IN_PART):
            some = users[at : at + USERS_IN_PART]
            edus.append(("m.presence", {"push": [{"user_id": user, "presence": "online"} for user in some]}))
            edus.append(("m.typing", {"room_id": copy.room_id, "user_id": some[0], "typing": True}))
            read = {"event_ids": copy.ends, "data": {"ts": now_ms()}}
            edus.append(("m.receipt", {copy.room_id: {"m.read": {user: read for user in some}}}))
            edus.append(("m.device_list_update", {"user_id": some[1], "device_id": "A", "stream_id": 1, "prev_id": []}))
        return [], [{"edu_type": kind, "content": content} for kind, content in edus]

    return make


def test_a_stream_of_ever_new_users_leaves_nothing_behind(lone, hostile):
    alice = Client(lone.base_url).register("alice")
    copy = hostile.join(lone, alice.create_room(preset="public_chat", room_version="11"))
    make = ever_new_users(hostile, copy)
    alice.sync()
    flood(lone, hostile, ROUNDS_BEFORE, make)
    with bounded(lone):
        flood(lone, hostile, FLOOD, lambda number: make(1_000 + number))
    # Clients are told of none of them, and of who is in the room.
    hostile.transact(lone, edus=[{"edu_type": "m.typing", "content": typing(copy)}])
    seen = []

    def is_there(answer):
        seen.append(json.dumps(answer))
        return hostile.user() in seen[-1]

    alice.sync_until(is_there)
    assert not any("@new" in answer for answer in seen)


def typing(copy):
    return {"room_id": copy.room_id, "user_id": copy.user, "typing": True}
