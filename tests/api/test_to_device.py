"""Messages to devices (spec: Send-to-Device messaging)."""

import pytest

from harness.client import unique

PATH = "sendToDevice/{eventType}/{txnId}"


def send(client, device, content, user=None, txn=None, **more):
    body = {"messages": {(user or client).user_id: {device: content}}}
    return client.put(PATH, "org.example.ping", txn or unique("txn"), json=body, **more)


def received(answer):
    return [event["content"] for event in answer.get("to_device", {}).get("events", [])]


def test_one_device_and_no_other(alice, bob):
    other = bob.login()
    send(alice, bob.device_id, {"n": 1}, user=bob)
    event = bob.sync()["to_device"]["events"][0]
    assert event == {"type": "org.example.ping", "sender": alice.user_id, "content": {"n": 1}}
    assert received(other.sync()) == []


@pytest.mark.ours("Synapse takes any number of them")
def test_too_many_messages_at_once_go_to_nobody(alice, bob):
    # More than a request may have.
    devices = {f"D{number}": {} for number in range(10_000)} | {bob.device_id: {"n": 1}}
    body = {"messages": {bob.user_id: devices}}
    alice.put(PATH, "org.example.ping", "many", json=body, status=413, errcode="M_TOO_LARGE")
    assert received(bob.sync()) == []
    body["messages"][bob.user_id].pop("D0")
    alice.put(PATH, "org.example.ping", "many", json=body)
    assert received(bob.sync()) == [{"n": 1}]


def test_all_devices(alice, bob):
    other = bob.login()
    send(alice, "*", {"n": 1}, user=bob)
    assert received(bob.sync()) == received(other.sync()) == [{"n": 1}]


def test_order_and_delivery_until_acknowledged(alice, bob):
    token = bob.sync()["next_batch"]
    for number in range(5):
        send(alice, bob.device_id, {"n": number}, user=bob)
    wanted = [{"n": number} for number in range(5)]
    assert received(bob.sync(since=token)) == wanted
    answer = bob.sync(since=token)
    assert received(answer) == wanted
    assert received(bob.sync(since=answer["next_batch"])) == []


def test_a_repeated_transaction_is_one_message(alice, bob):
    txn = unique("same")
    for _ in range(2):
        send(alice, bob.device_id, {"n": 1}, user=bob, txn=txn)
    assert received(bob.sync()) == [{"n": 1}]


def test_a_waiting_sync_is_woken(alice, bob):
    bob.sync()
    send(alice, bob.device_id, {"n": 1}, user=bob)
    assert bob.sync_until(received) == [{"n": 1}]


def test_many_messages_come_in_pieces_and_in_order(alice, bob):
    for number in range(250):
        send(alice, bob.device_id, {"n": number}, user=bob)
    seen = []
    while len(seen) < 250:
        part = received(bob.sync())
        assert part
        seen += part
    assert seen == [{"n": number} for number in range(250)]


def test_an_unknown_device_is_no_error(alice, bob):
    send(alice, "NOWHERE", {"n": 1}, user=bob)
    assert received(bob.sync()) == []


@pytest.mark.ours("Synapse fails inside on values of another type")
def test_malformed(alice):
    for body in ({}, {"messages": 7}, {"messages": {"@a:b": {"D": "text"}}}):
        alice.put(PATH, "org.example.ping", unique("txn"), json=body, status=400)
