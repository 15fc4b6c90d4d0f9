"""Who sends messages to devices without end fills no queue at others' cost: keys for rooms come in the same queue."""

import pytest

from harness.client import Client, unique
from harness.metrics import told
from harness.participant import Participant
from harness.server import free_port, sound

# What one device may have waiting.
WAITING_MAX = 10_000
# Messages in a transaction.
AT_ONCE = 100


def direct(peer, user_id, device_id="*"):
    messages = {user_id: {device_id: {"key": "none"}}}
    content = {"sender": peer.user(), "type": "m.test", "message_id": unique("m"), "messages": messages}
    return {"edu_type": "m.direct_to_device", "content": content}


def flood(server, peer, user_id, count):
    for _ in range(count // AT_ONCE):
        peer.transact(server, edus=[direct(peer, user_id) for _ in range(AT_ONCE)])


def send(client, user, content):
    body = {"messages": {user.user_id: {user.device_id: content}}}
    client.put("sendToDevice/{eventType}/{txnId}", "m.room_key", unique("txn"), json=body)


def received(client):
    """All that waits for the device, in the order in which it came; what was received is acknowledged."""
    events = []
    while part := client.sync().get("to_device", {}).get("events", []):
        events += part
    return events


@pytest.mark.parametrize("strangers", [1, 3])
def test_strangers_have_nobodys_messages_dropped(network, tmp_path, honest, strangers):
    """They share no room with anybody. One of them may have a half of what a device may have waiting; three have all of it."""
    address = f"127.0.0.1:{free_port()}"
    with sound(network.server(tmp_path, "--metrics-listen", f"http://{address}")) as server:
        alice, bob = (Client(server.base_url).register(name) for name in ("alice", "bob"))
        alice.sync()
        send(bob, alice, {"n": 0})
        hostile = [network.peer(kind=Participant) for _ in range(strangers)]
        for peer in hostile:
            flood(server, peer, alice.user_id, WAITING_MAX if strangers == 1 else WAITING_MAX // 2)
        for number in range(1, 4):
            send(bob, alice, {"n": number})
        honest.transact(server, edus=[direct(honest, alice.user_id, alice.device_id)])
        came = received(alice)
        assert [event["content"] for event in came if event["sender"] == bob.user_id] == [{"n": n} for n in range(4)]
        shares = [sum(event["sender"] == peer.user() for event in came) for peer in (honest, *hostile)]
        assert shares[0] == 1 and max(shares) <= WAITING_MAX // 2
        assert len(came) == (WAITING_MAX if strangers > 1 else WAITING_MAX // 2 + 5)
        # What is dropped or takes another's place is counted, as far as other servers send it.
        dropped = told(f"http://{address}", "warren_federation_edus_dropped_total")
        assert dropped["queue_full",] == (WAITING_MAX // 2 if strangers == 1 else WAITING_MAX // 2 + 2)
        # The device is there again: whatever comes has its place.
        flood(server, hostile[0], alice.user_id, AT_ONCE)
        assert len(received(alice)) == AT_ONCE
