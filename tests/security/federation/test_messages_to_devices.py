"""Who sends messages to devices without end fills no queue at others' cost: keys for rooms come in the same queue."""

import json

import pytest

from harness.client import Client, unique
from harness.metrics import memory_of, told
from harness.participant import Participant
from harness.server import free_port, sound

# What one device may have waiting.
WAITING_MAX = 10_000
# Messages in a transaction.
AT_ONCE = 100
# Bytes that a server may have waiting for a device whose user is in no room with it.
STRANGERS_BYTES_MAX = 256 * 1024
# What one such transaction may take at most while it is taken in: some times its six megabytes.
MEMORY_MAX = 100 * 1024 * 1024


def direct(peer, user_id, device_id="*", content=None):
    messages = {user_id: {device_id: content or {"key": "none"}}}
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


@pytest.mark.parametrize("servers", [1, 3])
def test_servers_have_nobodys_messages_dropped(network, tmp_path, honest, servers):
    """One of them may have a half of what a device may have waiting; three have all of it."""
    address = f"127.0.0.1:{free_port()}"
    with sound(network.server(tmp_path, "--metrics-listen", f"http://{address}")) as server:
        alice, bob = (Client(server.base_url).register(name) for name in ("alice", "bob"))
        alice.sync()
        send(bob, alice, {"n": 0})
        room = alice.create_room(preset="public_chat")
        hostile = [network.peer(kind=Participant) for _ in range(servers)]
        for peer in hostile:
            peer.join(server, room)
            flood(server, peer, alice.user_id, WAITING_MAX if servers == 1 else WAITING_MAX // 2)
        for number in range(1, 4):
            send(bob, alice, {"n": number})
        honest.transact(server, edus=[direct(honest, alice.user_id, alice.device_id)])
        came = received(alice)
        assert [event["content"] for event in came if event["sender"] == bob.user_id] == [{"n": n} for n in range(4)]
        shares = [sum(event["sender"] == peer.user() for event in came) for peer in (honest, *hostile)]
        assert shares[0] == 1 and max(shares) <= WAITING_MAX // 2
        assert len(came) == (WAITING_MAX if servers > 1 else WAITING_MAX // 2 + 5)
        # What is dropped or takes another's place is counted, as far as other servers send it.
        dropped = told(f"http://{address}", "warren_federation_edus_dropped_total")
        assert dropped["queue_full",] == (WAITING_MAX // 2 if servers == 1 else WAITING_MAX // 2 + 2)
        # The device is there again: whatever comes has its place.
        flood(server, hostile[0], alice.user_id, AT_ONCE)
        assert len(received(alice)) == AT_ONCE


def test_a_stranger_leaves_little_however_large_its_messages_are(network, tmp_path, hostile, honest):
    """It shares no room with Alice, who has many devices, and writes to all of them."""
    address = f"127.0.0.1:{free_port()}"
    with sound(network.server(tmp_path, "--metrics-listen", f"http://{address}")) as server:
        alice = Client(server.base_url).register("alice")
        devices = [alice, *(alice.login() for _ in range(59))]
        content = {"text": "x" * 60_000}
        message = {"content": content, "sender": hostile.user(), "type": "m.test"}
        fitting = STRANGERS_BYTES_MAX // len(json.dumps(message, separators=(",", ":")))
        before = memory_of(server)
        hostile.transact(server, edus=[direct(hostile, alice.user_id, content=content) for _ in range(AT_ONCE)])
        assert memory_of(server) - before < MEMORY_MAX
        refused = (AT_ONCE - fitting) * len(devices)
        assert told(f"http://{address}", "warren_federation_edus_dropped_total") == {("stranger",): refused}
        # Others are heard, be they strangers as well.
        honest.transact(server, edus=[direct(honest, alice.user_id)])
        for device in (devices[0], devices[-1]):
            came = [event["sender"] for event in received(device)]
            assert came == [hostile.user()] * fitting + [honest.user()]
        # A device that is there is told more.
        hostile.transact(server, edus=[direct(hostile, alice.user_id, device_id=alice.device_id)])
        assert len(received(alice)) == 1


def test_a_transaction_that_reaches_many_devices_comes_whole_and_once(server, hostile, room, alice):
    """It is more than is written at once. Alice shares a room with its sender."""
    hostile.join(server, room)
    devices = [alice, *(alice.login() for _ in range(29))]
    contents = [{"number": number, "text": "x" * 50_000} for number in range(10)]
    edus = [direct(hostile, alice.user_id, content=content) for content in contents]
    # The answer is lost, and the same comes again with something else.
    hostile.transact(server, edus=edus)
    hostile.transact(server, edus=[*edus, direct(hostile, alice.user_id, content={"number": 10})])
    for device in devices:
        assert [event["content"]["number"] for event in received(device)] == list(range(11))
