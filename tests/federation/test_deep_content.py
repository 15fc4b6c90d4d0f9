"""What this server takes from its users it sends on, however deeply it is nested: what carries it adds to that."""

import json

import pytest

from harness.client import unique
from harness.events import nested

# More than are taken of anything.
DEPTHS = range(90, 110)


@pytest.fixture
def room(server, alice, resident):
    """A room of Alice's in which a user of the peer is."""
    room = alice.create_room(preset="public_chat", room_version="11")
    resident.join(server, room)
    return room


def test_messages(alice, resident, room):
    contents = [{"msgtype": "m.text", "body": f"{depth}", "x": nested(depth)} for depth in DEPTHS]
    taken = [content for content in contents if isinstance(alice.send(room, content, status=(200, 400)), str)]
    # With the event and its content around it.
    assert taken[-1]["body"] == "98"
    alice.send(room, "behind")
    resident.until(lambda: "behind" in resident.bodies)
    came = [event["content"] for event in resident.pdus if event["type"] == "m.room.message"]
    assert came[:-1] == taken


def test_messages_to_devices(alice, resident, room):
    def send(content):
        messages = {resident.user(): {"B": content}}
        path = "sendToDevice/{eventType}/{txnId}"
        return alice.put(path, "m.test", unique("txn"), json={"messages": messages}, status=(200, 400))

    contents = [{"depth": depth, "x": nested(depth, "array")} for depth in DEPTHS]
    taken = [content for content in contents if send(content) == {}]
    # With the content around it.
    assert taken[-1]["depth"] == 99
    assert send({"depth": 0}) == {}
    resident.until(lambda: len(resident.edus("m.direct_to_device")) > len(taken))
    came = [edu["messages"][resident.user()]["B"] for edu in resident.edus("m.direct_to_device")]
    assert came == [*taken, {"depth": 0}]


def test_keys_of_devices(alice, resident, room):
    taken = {}
    for depth in DEPTHS:
        user = alice.login()
        keys = {"user_id": user.user_id, "device_id": user.device_id, "algorithms": [], "keys": {}, "signatures": {}}
        keys["x"] = nested(depth)
        if "errcode" not in user.post("keys/upload", json={"device_keys": keys}, status=(200, 400)):
            taken[user.device_id] = keys["x"]
    assert taken and max(len(json.dumps(value)) for value in taken.values()) == len(json.dumps(nested(99)))

    def came():
        updates = [edu for edu in resident.edus("m.device_list_update") if edu.get("keys")]
        return {update["device_id"]: update["keys"]["x"] for update in updates}

    resident.until(lambda: came() == taken)
    alice.send(room, "behind")
    resident.until(lambda: "behind" in resident.bodies)


def test_what_an_invite_shows(alice, resident):
    room, topic = alice.create_room(preset="private_chat", room_version="11"), {"topic": "burrows", "x": nested(98)}
    alice.set_state(room, "m.room.topic", topic)
    alice.post("rooms/{roomId}/invite", room, json={"user_id": resident.user()})
    (request,) = [request for request in resident.requests if "/v2/invite/" in request.target]
    shown = {state["type"]: state["content"] for state in json.loads(request.body)["invite_room_state"]}
    assert shown["m.room.topic"] == topic
