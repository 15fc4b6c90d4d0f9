"""What is sent to other servers: making it, and asking how it fares."""

from harness.client import unique
from harness.waiting import until

ADMIN = "/_synapse/admin/v1/federation/destinations"


def asked(client, path, method="GET", status=200):
    """An endpoint that the specification does not know."""
    response = client.send_raw(method, path, json={} if method == "POST" else None)
    assert response.status_code == status, response.text
    return response.json()


def send_to_device(client, messages):
    client.put("sendToDevice/{eventType}/{txnId}", "m.test", unique("txn"), json={"messages": messages})


def room_with(alice, warren, peer):
    """A room that a user of the peer is in. Answers its id, and the user's."""
    room_id = alice.create_room(preset="public_chat")
    return room_id, peer.join(warren, room_id).user


def until_failing(admin, peer):
    """The failure is noted a moment after the peer has seen the attempt."""
    until(lambda: asked(admin, f"{ADMIN}/{peer.name}")["failures"])
    return asked(admin, f"{ADMIN}/{peer.name}")
