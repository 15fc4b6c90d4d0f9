"""What is told outside of rooms: who types, who has read what, who is there, messages to devices, changes of devices."""

import pytest

from harness.beside import device_keys, devices_of, receipt
from harness.client import joined, unique
from harness.peer import Key, signed
from harness.rooms import see, via


@pytest.fixture(params=["ours to theirs", "theirs to ours"])
def pair(request, room, alice, bob):
    """Who does something, and whose client sees it."""
    return (alice, bob) if request.param == "ours to theirs" else (bob, alice)


def ephemeral(answer, room, type):
    events = joined(answer, room).get("ephemeral", {}).get("events", [])
    return [event["content"] for event in events if event["type"] == type]


def test_typing(room, pair):
    doer, reader = pair
    for typing in (True, False):
        body = {"typing": typing, "timeout": 30_000} if typing else {"typing": False}
        doer.put("rooms/{roomId}/typing/{userId}", room, doer.user_id, json=body)

        def is_seen(answer):
            told = ephemeral(answer, room, "m.typing")
            return bool(told) and (doer.user_id in told[-1]["user_ids"]) == typing

        reader.sync_until(is_seen)


def test_receipts_by_thread(room, pair):
    doer, reader = pair
    root = reader.send(room, "what do you think?")
    relation = {"rel_type": "m.thread", "event_id": root}
    reply = reader.send(room, {"msgtype": "m.text", "body": "well?", "m.relates_to": relation})
    see(doer, room, reply)
    seen = {}

    def note(answer):
        for content in ephemeral(answer, room, "m.receipt"):
            for event_id, kinds in content.items():
                for kind, users in kinds.items():
                    if doer.user_id in users:
                        seen[event_id, users[doer.user_id].get("thread_id")] = kind
        return seen.get((reply, root)) and seen.get((root, "main"))

    receipt(doer, room, reply, "m.read.private", thread_id=root)
    receipt(doer, room, root, thread_id="main")
    receipt(doer, room, reply, thread_id=root)
    reader.sync_until(note)
    assert set(seen.values()) == {"m.read"}, "what is private is nobody else's"


def test_presence(room, pair):
    doer, reader = pair
    for state, text in (("online", "in the burrow"), ("unavailable", "asleep")):
        doer.put("presence/{userId}/status", doer.user_id, json={"presence": state, "status_msg": text})

        def is_seen(answer):
            events = answer.get("presence", {}).get("events", [])
            told = [event["content"] for event in events if event["sender"] == doer.user_id]
            return [content for content in told if (content["presence"], content.get("status_msg")) == (state, text)]

        reader.sync_until(is_seen)


@pytest.mark.parametrize("host", ["ours", "theirs"])
def test_who_is_there_and_who_comes_in_see_each_other(here, there, alice, bob, host):
    owner, guest, server = (alice, bob, here) if host == "ours" else (bob, alice, there)
    # They are there before they share a room, and do nothing more that their servers could tell.
    for user in (alice, bob):
        user.sync()
    room = owner.create_room(preset="public_chat", room_version="10")
    guest.join(room, query=via(server))
    for reader, other in ((guest, owner), (owner, guest)):

        def is_seen(answer, other=other):
            events = answer.get("presence", {}).get("events", [])
            return "online" in [event["content"]["presence"] for event in events if event["sender"] == other.user_id]

        reader.sync_until(is_seen)
    assert alice.get("presence/{userId}/status", bob.user_id)["presence"] == "online"


def test_messages_to_devices_come_once_and_in_order(room, pair):
    doer, reader = pair
    other = reader.login()
    other.sync()
    path = "sendToDevice/{eventType}/{txnId}"
    for number in range(30):
        messages = {reader.user_id: {reader.device_id: {"number": number}}}
        doer.put(path, "org.example.test", unique("txn"), json={"messages": messages})
    doer.put(path, "org.example.test", unique("txn"), json={"messages": {reader.user_id: {"*": {"number": "last"}}}})
    for device, numbers in ((reader, [*range(30), "last"]), (other, ["last"])):
        seen = []

        def all_seen(answer):
            seen.extend(event["content"]["number"] for event in answer.get("to_device", {}).get("events", []))
            return "last" in seen

        device.sync_until(all_seen)
        all_seen(device.sync())
        assert seen == numbers


def until_changed(reader, doer):
    reader.sync_until(lambda answer: doer.user_id in answer.get("device_lists", {}).get("changed", []))


def test_changes_of_devices(room, pair):
    doer, reader = pair
    doer.post("keys/upload", json={"device_keys": device_keys(doer)})
    until_changed(reader, doer)
    assert devices_of(reader, doer) == {doer.device_id}
    other = doer.login()
    other.post("keys/upload", json={"device_keys": device_keys(other)})
    reader.sync_until(lambda _: devices_of(reader, doer) == {doer.device_id, other.device_id})
    other.post("logout")
    reader.sync_until(lambda _: devices_of(reader, doer) == {doer.device_id})


def test_who_is_invited_may_have_other_devices_than_when_they_were_there(room, pair):
    """Clients encrypt for who is invited, too."""
    doer, reader = pair
    doer.post("keys/upload", json={"device_keys": device_keys(doer)})
    until_changed(reader, doer)
    doer.leave(room)
    reader.sync_until(lambda answer: doer.user_id in answer.get("device_lists", {}).get("left", []))
    other = doer.login()
    other.post("keys/upload", json={"device_keys": device_keys(other)})
    doer.post("logout")
    reader.invite(room, other)
    lists = reader.sync_until(lambda answer: answer.get("device_lists"))
    assert (lists["changed"], lists.get("left", [])) == ([doer.user_id], [])
    assert devices_of(reader, doer) == {other.device_id}


def test_changes_of_cross_signing_keys(room, pair):
    doer, reader = pair
    master, self_signing = Key(), Key()
    for key in (master, self_signing):
        key.id = f"ed25519:{key.public}"

    def keys_of(key, usage):
        return {"user_id": doer.user_id, "usage": [usage], "keys": {key.id: key.public}}

    of_self = signed(keys_of(self_signing, "self_signing"), doer.user_id, master)
    body = {"master_key": keys_of(master, "master"), "self_signing_key": of_self}
    doer.post("keys/device_signing/upload", json=body)
    until_changed(reader, doer)
    found = reader.post("keys/query", json={"device_keys": {doer.user_id: []}})
    assert found["master_keys"][doer.user_id]["keys"] == {master.id: master.public}
    assert found["self_signing_keys"][doer.user_id]["keys"] == {self_signing.id: self_signing.public}
