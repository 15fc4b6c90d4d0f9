"""A server speaks for its own users alone, whatever it tells, and of what is there.

The class of fault: receipts, presence, typing, messages to devices and device lists of users of another server.
"""

import json

import pytest

from harness.client import joined
from harness.events import id_of
from harness.participant import path
from harness.peer import Key, now_ms
from harness.rooms import see
from harness.waiting import until


@pytest.fixture
def vera(server, honest, room, copy):
    """A user of an honest server in the room."""
    user = honest.user("vera")
    honest.join(server, room, user)
    return user


def edus(user, room, event_id, reader):
    """One of each kind that tells of the user."""
    read = {"event_ids": [event_id], "data": {"ts": now_ms()}}
    device = {"user_id": user, "device_id": "FORGED"}
    message = {"sender": user, "type": "org.example.test", "message_id": f"of {user}"}
    return {
        "m.typing": {"room_id": room, "user_id": user, "typing": True},
        "m.receipt": {room: {"m.read": {user: read}}},
        "m.presence": {"push": [{"user_id": user, "presence": "online", "last_active_ago": 1, "status_msg": "forged"}]},
        "m.direct_to_device": {**message, "messages": {reader.user_id: {"*": {"forged": True}}}},
        "m.device_list_update": {**device, "stream_id": 7, "prev_id": [6], "keys": device_keys(device)},
        "m.signing_key_update": {"user_id": user, "master_key": master_key(user, NEW_MASTER)},
    }


def device_keys(device):
    return {**device, "algorithms": [], "keys": {"ed25519:FORGED": "A" * 43}, "signatures": {}}


# The master key of whomever an update tells of, and the one that they had before.
NEW_MASTER, OLD_MASTER = Key(), Key()


def master_key(user, key):
    return {"user_id": user, "usage": ["master"], "keys": {f"ed25519:{key.public}": key.public}}


def keys_of(client, *users):
    """All that a client is told of their keys."""
    return json.dumps(client.post("keys/query", json={"device_keys": {user: [] for user in users}}))


def follow(client, peer, user):
    """Has the server keep the devices and keys of the peer's user. What it keeps it asks nobody for."""
    told = {"user_id": user, "stream_id": 6, "devices": [], "master_key": master_key(user, OLD_MASTER)}
    peer.answers[path("v1/user/devices/{}", user)] = lambda _: (200, told)
    until(lambda: OLD_MASTER.public in keys_of(client, user))


def as_edus(contents):
    return [{"edu_type": kind, "content": content} for kind, content in contents.items()]


def seen_of(client, room, user):
    """What sync says of a user beside events, once the hostile server's last event has come."""
    answer = client.sync()
    parts = [joined(answer, room).get("ephemeral"), answer.get("presence"), answer.get("to_device")]
    told = [part for part in parts if user in json.dumps(part)]
    return told + [name for name in answer.get("device_lists", {}).get("changed", []) if name == user]


def test_nobody_speaks_for_users_of_another(server, hostile, honest, copy, alice, bob, room, vera):
    bob.join(room)
    event_id = alice.send(room, "read me")
    follow(alice, honest, vera)
    for user in (vera, bob.user_id, alice.user_id):
        alice.sync()
        forged = as_edus(edus(user, room, event_id, alice))
        assert hostile.transact(server, edus=forged) == {}
        # Naming another origin in the body helps nothing.
        assert hostile.transact(server, edus=forged, origin=user.split(":", 1)[1]) == {}
        assert seen_of(alice, room, user) == [], user
    found = keys_of(alice, vera, bob.user_id, alice.user_id)
    assert "FORGED" not in found and NEW_MASTER.public not in found
    assert OLD_MASTER.public in found


def test_what_a_server_tells_of_its_own_users_is_seen(server, hostile, copy, alice, room):
    """The proof that the test above would notice."""
    event_id = alice.send(room, "read me")
    follow(alice, hostile, hostile.user())
    alice.sync()
    hostile.transact(server, edus=as_edus(edus(hostile.user(), room, event_id, alice)))
    found = keys_of(alice, hostile.user())
    assert "FORGED" in found and NEW_MASTER.public in found and OLD_MASTER.public not in found
    # Typing, receipt and message; presence; devices.
    answer = alice.sync()
    kinds = {event["type"] for event in joined(answer, room)["ephemeral"]["events"]}
    assert kinds == {"m.typing", "m.receipt"}
    assert answer["to_device"]["events"][0]["sender"] == hostile.user()
    assert hostile.user() in answer["device_lists"]["changed"]
    assert hostile.user() in json.dumps(answer["presence"])


def test_nobody_is_where_they_are_not(server, hostile, copy, alice, room):
    """Users who are in no room or in another, and events, threads and devices that are not there."""
    closed = alice.create_room(preset="private_chat")
    secret, event_id = alice.send(closed, "secret"), alice.send(room, "read me")
    ghost = hostile.user("ghost")
    alice.sync()
    thread = {"event_ids": [event_id], "data": {"ts": 1, "thread_id": secret}}
    contents = [
        edus(ghost, room, event_id, alice),
        {"m.typing": {"room_id": closed, "user_id": hostile.user(), "typing": True}},
        {"m.receipt": {closed: {"m.read": {hostile.user(): {"event_ids": [secret], "data": {"ts": 1}}}}}},
        {"m.receipt": {room: {"m.read": {hostile.user(): {"event_ids": [secret], "data": {"ts": 1}}}}}},
        {"m.receipt": {room: {"m.read": {hostile.user(): {"event_ids": ["$nothing"], "data": {"ts": 1}}}}}},
        {"m.receipt": {room: {"m.read": {hostile.user(): thread}}}},
    ]
    for content in contents:
        content.pop("m.direct_to_device", None)
        hostile.transact(server, edus=as_edus(content))
    answer = alice.sync()
    assert joined(answer, closed) == {} and hostile.user() not in json.dumps(joined(answer, room).get("ephemeral"))
    assert ghost not in json.dumps(answer)
    messages = {f"@nobody:{server.name}": {"*": {}}, alice.user_id: {"NOWHERE": {}}, "@x:elsewhere.test": {"*": {}}}
    direct = {"sender": hostile.user(), "type": "t", "message_id": "m", "messages": messages}
    hostile.transact(server, edus=as_edus({"m.direct_to_device": direct}))
    assert alice.sync().get("to_device", {}).get("events", []) == []


def test_no_event_is_by_a_user_of_another(server, hostile, honest, copy, alice, bob, room, vera):
    for user in (vera, alice.user_id, bob.user_id):
        forged = hostile.message(copy, "forged", sender=user)
        results = hostile.transact(server, [forged])
        assert all("error" in result for result in results.values()) and results, results
    # Nor does the origin that stands in it count.
    forged = hostile.message(copy, "forged", sender=vera, origin=hostile.name)
    hostile.transact(server, [forged])
    good = hostile.place(copy, hostile.message(copy, "own"))
    hostile.transact(server, [good])
    assert see(alice, room, id_of(good))["sender"] == hostile.user()
    assert "forged" not in json.dumps(alice.messages(room, limit=50))
