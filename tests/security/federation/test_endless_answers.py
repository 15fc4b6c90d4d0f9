"""Answers with a room's state in them that never end, or are larger than they may be: whoever waits for one is told, the memory
of the server stays bounded, and other rooms go on.

The class of fault: answers without end, those in which much stands in few bytes, and such as stand still.
"""

import concurrent.futures
import itertools
import threading

import pytest

from harness.client import Client, bodies
from harness.events import id_of
from harness.metrics import memory_of
from harness.rooms import joined_members, see, via
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

MIB = 1 << 20
# All such answers have 256 MiB, of which one server has two thirds; what is read of one is doubled at most while it grows.
MEMORY_BYTES_MAX = 400 * MIB
# What an answer goes on for if nobody ends it: far more than that.
ENDLESS_BYTES = 1024 * MIB
# Longer than any of them is waited for.
SECONDS_MAX = 60


@pytest.fixture
def server(network, tmp_path):
    """A server of its own, whose memory nobody else has used."""
    with sound(network.server(tmp_path)) as server:
        yield server


class Going:
    """An answer that goes on: what has been taken of it, and whether it is over."""

    def __init__(self, head, piece=b"", bytes_max=ENDLESS_BYTES):
        self.head, self.piece, self.bytes_max = head, piece, bytes_max
        self.bytes, self.ended = 0, threading.Event()

    def pieces(self):
        # It may be asked for again.
        self.bytes = 0
        try:
            for piece in itertools.chain([self.head], itertools.repeat(self.piece)):
                self.bytes += len(piece)
                yield piece
                if self.bytes > self.bytes_max:
                    break
            yield b'"]}'
        finally:
            self.ended.set()


# How a list of the answer goes on, and how far: with one text, or with what takes many times its text once it is read. The latter
# come to an end, so that they could be read.
PIECES = {
    "one long text": (b"x" * MIB, ENDLESS_BYTES),
    "tiny elements": (b'",' + b"0," * (MIB // 2) + b'"', 64 * MIB),
    "objects": (b'",' + b'{"type":"m.room.member","content":{}},' * (MIB // 38) + b'"', 128 * MIB),
}


def going(name, kind):
    """An answer of which that list goes on and on."""
    piece, bytes_max = PIECES[kind]
    return Going(b'{"%b":["' % name.encode(), piece, bytes_max)


def assert_bounded(server, before, answer):
    assert answer.ended.wait(SECONDS_MAX), "it is still read"
    assert answer.bytes < answer.bytes_max, "all of it was read"
    assert memory_of(server) - before < MEMORY_BYTES_MAX


def assert_goes_on(server, hostile, alice, copy):
    event = hostile.place(copy, hostile.message(copy, "on and on"))
    assert hostile.transact(server, [event]) == {id_of(event): {}}
    see(alice, copy.room_id, id_of(event))
    alice.send(copy.room_id, "and on")
    hostile.until(lambda: "and on" in hostile.bodies)


@pytest.mark.parametrize("kind", PIECES)
@pytest.mark.parametrize("name", ["state", "auth_chain"])
def test_a_join_without_end(server, hostile, copy, alice, name, kind):
    endless = hostile.create()
    answer = going(name, kind)
    hostile.answer_send_join = lambda *_: (200, answer.pieces())
    before = memory_of(server)
    alice.post("join/{roomIdOrAlias}", endless.room_id, query=via(hostile), status=502, errcode="M_UNKNOWN")
    assert_bounded(server, before, answer)
    assert endless.room_id not in alice.get("joined_rooms")["joined_rooms"]
    assert_goes_on(server, hostile, alice, copy)


def behind_a_gap(hostile, copy):
    """A message that follows what nobody gives, so that the state before it is asked for."""
    return hostile.message(copy, "behind a gap", prev_events=["$" + "A" * 43])


@pytest.mark.parametrize("kind", PIECES)
@pytest.mark.parametrize("question, name", [("state_ids", "pdu_ids"), ("state", "pdus"), ("state", "auth_chain")])
def test_a_state_without_end(server, hostile, copy, alice, question, name, kind):
    """It is asked for because of a gap. What it would be about is not taken in, and all else goes on."""
    gapped = hostile.join(server, alice.create_room(preset="public_chat", room_version="11"))
    answer = going(name, kind)
    event = behind_a_gap(hostile, gapped)
    # So many events are unknown that they are not asked for one by one.
    unknown = ["$" + f"{number}".rjust(43, "A") for number in range(500)]
    hostile.answer_state_ids = lambda *_: (200, {"pdu_ids": unknown, "auth_chain_ids": []})
    setattr(hostile, f"answer_{question}", lambda *_: (200, answer.pieces()))
    before = memory_of(server)
    assert hostile.transact(server, [event]) == {id_of(event): {}}
    until(lambda: hostile.versions_asked(question), SECONDS_MAX)
    assert_goes_on(server, hostile, alice, copy)
    assert_bounded(server, before, answer)
    assert_goes_on(server, hostile, alice, copy)
    # So does the room itself.
    assert_goes_on(server, hostile, alice, gapped)
    assert "behind a gap" not in bodies(room_messages(alice, gapped.room_id))


@pytest.mark.parametrize("kind", PIECES)
def test_members_without_end(server, hostile, copy, alice, kind):
    """A room is entered without its members, and the state in which they would be told does not end."""
    endless = hostile.create()
    answer, answer_send_join = going("pdus", kind), hostile.answer_send_join

    def without_members(values, query, body):
        status, told = answer_send_join(values, query, body)
        return status, {**told, "members_omitted": True, "servers_in_room": [hostile.name]}

    hostile.answer_send_join = without_members
    hostile.answer_state = lambda *_: (200, answer.pieces())
    before = memory_of(server)
    alice.join(endless.room_id, query=via(hostile))
    assert_bounded(server, before, answer)
    alice.send(endless.room_id, "spoken all the same")
    assert_goes_on(server, hostile, alice, copy)
    # The members come once they are told.
    del hostile.answer_state
    until(lambda: joined_members(alice, endless.room_id) == {alice.user_id, hostile.user()})


class Silent(Going):
    """An answer that begins, and stands still when it has taken some of what others may wait for."""

    def pieces(self):
        try:
            yield self.head + b"x" * (2 * MIB)
            # Nobody is sent what the other end does not take: whether it still listens is seen by single bytes.
            while not self.ended.wait(0.2):
                yield b"x"
        finally:
            self.ended.set()


def test_answers_that_stand_still(server, hostile, copy, alice):
    """A join that a client waits for and a state that an event does, at the same time."""
    gapped = hostile.join(server, alice.create_room(preset="public_chat", room_version="11"))
    joined, told = Silent(b'{"state":["'), Silent(b'{"pdu_ids":["')
    hostile.answer_send_join = lambda *_: (200, joined.pieces())
    hostile.answer_state_ids = lambda *_: (200, told.pieces())
    event = behind_a_gap(hostile, gapped)
    assert hostile.transact(server, [event]) == {id_of(event): {}}
    until(lambda: hostile.versions_asked("state_ids"), SECONDS_MAX)
    endless = hostile.create()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ask = Client(server.base_url, alice.user_id, alice.token).post
        waiting = pool.submit(ask, "join/{roomIdOrAlias}", endless.room_id, query=via(hostile), status=502, errcode="M_UNKNOWN")
        until(lambda: hostile.versions_asked("send_join"), SECONDS_MAX)
        assert_goes_on(server, hostile, alice, copy)
        assert not joined.ended.is_set(), "nobody waited for it"
        waiting.result()
    assert joined.ended.wait(SECONDS_MAX) and told.ended.wait(SECONDS_MAX), "they are still read"
    assert_goes_on(server, hostile, alice, gapped)
