"""Who invites a user without end fills neither the disk nor the user's sync, keeps nobody else's invites out, and can be removed."""

import collections
import subprocess

import pytest

from harness import server as binary
from harness.client import Client
from harness.rooms import left
from harness.server import sound

# What a server may have waiting for a user's answer, and what it may invite at once.
OPEN_MAX, AT_ONCE_MAX = 100, 300
PADDING = {"org.example.padding": "x" * 56_000}


@pytest.fixture
def lone(network, tmp_path):
    with sound(network.server(tmp_path)) as server:
        yield server


def invite(server, peer, user, **content):
    """To a room that nobody has heard of. Answers with status, answer and the room."""
    copy = peer.create("invite")
    content = {"membership": "invite", **content}
    event = peer.event(copy, "m.room.member", content, state_key=user.user_id)
    return *peer.send_invite(server, copy.room_id, event), copy.room_id


def rooms(client, section):
    client.since = None
    return client.sync().get("rooms", {}).get(section, {})


def test_a_flood_of_invites_is_bounded_and_costs_nobody_else_theirs(lone, hostile, honest):
    alice, bob = (Client(lone.base_url).register(name) for name in ("alice", "bob"))
    statuses = collections.Counter()
    before, first = lone.disk(), None
    while 429 not in statuses:
        status, answer, room = invite(lone, hostile, alice, **(PADDING if sum(statuses.values()) < OPEN_MAX + 5 else {}))
        first = first or room
        statuses[status] += 1
        if status == 403:
            assert answer["errcode"] == "M_FORBIDDEN" and "invites" in answer["error"]
        assert sum(statuses.values()) < 2 * AT_ONCE_MAX
    assert answer["errcode"] == "M_LIMIT_EXCEEDED" and answer["retry_after_ms"] > 0
    assert statuses[200] == OPEN_MAX and statuses[403] >= AT_ONCE_MAX - OPEN_MAX
    assert lone.disk() - before < 3_000_000
    assert len(rooms(alice, "invite")) == OPEN_MAX
    assert len(str(rooms(alice, "invite"))) < 500_000
    # Neither the user nor anybody else is kept from being invited by others.
    for user in (alice, bob):
        status, _, room = invite(lone, honest, user)
        assert status == 200
        assert room in rooms(user, "invite")
    # What is declined and forgotten makes room, and the user's other devices learn of it.
    other = alice.login()
    other.sync()
    alice.leave(first)
    alice.post("rooms/{roomId}/forget", first)
    other.sync_until(lambda answer: left(answer, first))
    assert first not in rooms(other, "invite")


def test_an_invite_to_a_room_elsewhere_is_purged(lone, hostile):
    alice = Client(lone.base_url).register("alice")
    unwanted, wanted = (invite(lone, hostile, alice)[2] for _ in range(2))
    assert set(rooms(alice, "invite")) == {unwanted, wanted}
    other = alice.login()
    other.sync()
    for client in (alice, other):
        client.http.close()
    assert lone.stop() == 0
    options = ["--data-dir", str(lone.data_dir), "--server-name", lone.name]
    subprocess.run([binary.binary(), "room", "purge", unwanted, *options], check=True, timeout=60)
    lone.start()
    other.sync_until(lambda answer: left(answer, unwanted))
    assert set(rooms(alice, "invite")) == {wanted}
