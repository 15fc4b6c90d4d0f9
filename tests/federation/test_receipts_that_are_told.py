"""What users have read is told to other servers, whatever becomes of this one meanwhile (server-server API, "Receipts")."""

import pytest

from harness.client import Client
from harness.deliveries import room_with

READ = "rooms/{roomId}/receipt/{receiptType}/{eventId}"


def readers(peer, room_id):
    """Whom the peer was told of as having read something, and what."""
    told = [edu[room_id]["m.read"] for edu in peer.edus("m.receipt") if room_id in edu]
    return {(user, event_id) for users in told for user, read in users.items() for event_id in read["event_ids"]}


def tried(peer):
    """Whether it was sent a receipt, whatever became of it."""
    return any(edu["edu_type"] == "m.receipt" for _, body in peer.tries for edu in body.get("edus", []))


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_was_read_while_a_peer_was_away_is_told_after_an_end(network, tmp_path, resident, is_killed):
    server = network.server(tmp_path)
    with server:
        alice, carol, dora, erin = (Client(server.base_url).register(name) for name in ("alice", "carol", "dora", "erin"))
        room_id, _ = room_with(alice, server, resident)
        for user in (carol, dora, erin):
            user.join(room_id)
        event_id = alice.send(room_id, "1")
        resident.until(lambda: resident.bodies == ["1"])
        resident.is_failing = True
        # This it does not take, and of what comes next it is not even told before the end.
        carol.post(READ, room_id, "m.read", event_id, json={})
        resident.until(lambda: tried(resident))
        dora.post(READ, room_id, "m.read", event_id, json={})
        erin.post(READ, room_id, "m.read.private", event_id, json={})
        if is_killed:
            server.kill()
        else:
            assert server.stop() == 0, server.log_tail()
    resident.is_failing = False
    with server:
        resident.until(lambda: len(readers(resident, room_id)) >= 2)
        assert readers(resident, room_id) == {(user.user_id, event_id) for user in (carol, dora)}
        assert server.stop() == 0, server.log_tail()
        server.check()
