"""A server is killed between a transaction and its answer: who sent it does not know that it was taken, and sends it again.
Each event is in its place for the clients of both, and there once."""

import pytest

from harness.client import bodies, of_type, timeline
from harness.federated import Gated
from harness.rooms import entrust, meet
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

# The pauses of whoever sends again: of a Warren ten seconds at first, of Synapse four; a loaded machine adds to them.
SECONDS_MAX = 90
FIRST, SECOND, LAST, AFTERWARDS = "the first one", "the second one", "the last one", "the one afterwards"


@pytest.fixture
def sleeper(authority, there, tmp_path):
    """A Warren that a test kills, with gates between it and the other server."""
    with sound(Gated(tmp_path / "sleeper", authority, there)) as server:
        yield server


@pytest.fixture
def zoe(sleeper):
    return sleeper.client(sleeper.base_url).register("zoe")


@pytest.fixture
def shared(there, zoe, bob):
    """A room of Bob's that Zoe is in."""
    room = meet(bob, zoe, there)
    entrust(bob, room, zoe)
    return room


class Reader:
    """What a client's syncs tell of the messages in a room, from now on."""

    def __init__(self, client, room):
        self.client, self.room, self.told = client, room, []
        client.sync()

    def look(self, answer, body):
        self.told += of_type(timeline(answer, self.room), "m.room.message")
        return body in bodies(self.told)

    def until(self, body):
        if body not in bodies(self.told):
            self.client.sync_until(lambda answer: self.look(answer, body), SECONDS_MAX)

    def has_read(self, event_ids):
        """Checks that it was told these, and can read them, each once and in that order."""
        self.until(AFTERWARDS)
        assert bodies(self.told) == [FIRST, SECOND, LAST, AFTERWARDS]
        assert [event["event_id"] for event in self.told] == event_ids
        assert [event["event_id"] for event in room_messages(self.client, self.room)] == event_ids


def said_without_an_answer(gate, speaker, room):
    """Messages of which the last ones are in a transaction that was taken, while who sent it still waits for the answer: their
    ids, and that answer."""
    first, last = gate.hold_answer(FIRST), gate.hold_answer(LAST)
    said = [speaker.send(room, FIRST)]
    first.until_taken()
    # What is said meanwhile goes together.
    said += [speaker.send(room, text) for text in (SECOND, LAST)]
    first.pass_on()
    last.until_taken()
    assert gate.times(LAST) == 1
    return said, last


def test_who_sent_is_killed_before_the_answer_comes(sleeper, shared, zoe, bob):
    speaker, reader = Reader(zoe, shared), Reader(bob, shared)
    said, answer = said_without_an_answer(sleeper.outward, zoe, shared)
    reader.until(LAST)
    sleeper.kill()
    answer.lose()
    sleeper.start()
    until(lambda: sleeper.outward.times(LAST) > 1, SECONDS_MAX)
    said.append(zoe.send(shared, AFTERWARDS))
    for client in (speaker, reader):
        client.has_read(said)


def test_who_answered_is_killed_before_the_answer_comes(sleeper, shared, zoe, bob):
    speaker, reader = Reader(bob, shared), Reader(zoe, shared)
    said, answer = said_without_an_answer(sleeper.inward, bob, shared)
    sleeper.kill()
    sleeper.start()
    # What it has answered for it has, before anybody sends it again.
    reader.until(LAST)
    assert sleeper.inward.times(LAST) == 1
    answer.lose()
    until(lambda: sleeper.inward.times(LAST) > 1, SECONDS_MAX)
    said.append(bob.send(shared, AFTERWARDS))
    for client in (speaker, reader):
        client.has_read(said)
