"""What users of Synapse may put into what they send, and Warren takes from nobody: it costs no other user anything."""

import pytest

from harness.client import unique
from harness.events import nested
from harness.rooms import see


@pytest.fixture
def there(synapse):
    """Warren refuses such things of its own users."""
    return synapse


def test_messages_to_devices(room, alice, bob):
    def send(content):
        messages = {alice.user_id: {alice.device_id: content}}
        bob.put("sendToDevice/{eventType}/{txnId}", "org.example.test", unique("txn"), json={"messages": messages})

    values = ["before", 10**30, "between", nested(200), "behind"]
    for value in values:
        send({"x": value})
    seen = []

    def all_seen(answer):
        seen.extend(event["content"]["x"] for event in answer.get("to_device", {}).get("events", []))
        return "behind" in seen

    alice.sync_until(all_seen)
    assert seen == ["before", "between", "behind"]
    see(alice, room, bob.send(room, "and on"))


def test_a_message_in_a_room(room, alice, bob):
    bob.send(room, {"msgtype": "m.text", "body": "deep", "x": nested(110)})
    for body in ("behind", "and on"):
        assert see(alice, room, bob.send(room, body))["content"]["body"] == body
    see(bob, room, alice.send(room, "and back"))
