"""Who invites a user without end fills neither the disk nor the user's sync, keeps nobody else's invites out, and can be removed."""

import collections
import subprocess

import pytest

from harness import server as binary
from harness.client import Client
from harness.rooms import left
from harness.server import sound

# What a server, and one of its users, may have waiting for a user's answer, what a server may invite at once, and all of them a user.
OPEN_MAX, OPEN_OF_SENDER_MAX, AT_ONCE_MAX, INVITED_MAX = 100, 20, 300, 150
PADDING = {"org.example.padding": "x" * 56_000}


@pytest.fixture
def lone(network, tmp_path):
    with sound(network.server(tmp_path)) as server:
        yield server


def invite(server, peer, user, sender="someone", **content):
    """To a room that nobody has heard of. Answers with status, answer and the room."""
    copy = peer.create("invite", user=peer.user(sender))
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
        number = sum(statuses.values())
        padding = PADDING if number < OPEN_MAX + 5 else {}
        status, answer, room = invite(lone, hostile, alice, f"spammer{number // OPEN_OF_SENDER_MAX}", **padding)
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


def test_one_user_keeps_no_others_of_their_server_from_inviting(lone, hostile):
    alice = Client(lone.base_url).register("alice")
    statuses = [invite(lone, hostile, alice, "spammer")[0] for _ in range(OPEN_OF_SENDER_MAX + 1)]
    assert statuses == [200] * OPEN_OF_SENDER_MAX + [403]
    status, _, room = invite(lone, hostile, alice, "friend")
    assert status == 200 and room in rooms(alice, "invite")


def test_the_same_invite_again_and_again_keeps_nobody_else_from_inviting(lone, hostile, honest):
    alice = Client(lone.base_url).register("alice")
    copy = hostile.create("invite")
    event = hostile.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    statuses = {hostile.send_invite(lone, copy.room_id, event)[0] for _ in range(INVITED_MAX + 30)}
    assert statuses == {200}
    status, _, room = invite(lone, honest, alice)
    assert status == 200 and room in rooms(alice, "invite")


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
