"""Receipts, read markers, typing and presence (spec: Receipts, Read and unread markers, Typing, Presence)."""

import json

import pytest

from harness.client import joined, of_type

RECEIPT = "rooms/{roomId}/receipt/{receiptType}/{eventId}"
TYPING = "rooms/{roomId}/typing/{userId}"
STATUS = "presence/{userId}/status"


def ephemeral(answer, room, type):
    return of_type(joined(answer, room).get("ephemeral", {}).get("events", []), type)


def receipts(answer, room, type="m.read"):
    """Who has read what: event → users → receipt."""
    found = {}
    for event in ephemeral(answer, room, "m.receipt"):
        for event_id, types in event["content"].items():
            if type in types:
                found[event_id] = types[type]
    return found


def test_a_receipt_reaches_the_others(alice, bob, room):
    event = alice.send(room, "read me")
    alice.sync()
    assert bob.post(RECEIPT, room, "m.read", event, json={}) == {}
    found = alice.sync_until(lambda answer: receipts(answer, room))
    assert found[event][bob.user_id]["ts"] > 0


def test_a_private_receipt_stays_private(alice, bob, room):
    first, second = alice.send(room, "one"), alice.send(room, "two")
    alice.sync()
    bob.sync()
    bob.post(RECEIPT, room, "m.read.private", first, json={})
    assert bob.user_id in bob.sync_until(lambda answer: receipts(answer, room, "m.read.private"))[first]
    bob.post(RECEIPT, room, "m.read", second, json={})

    def public(answer):
        assert not receipts(answer, room, "m.read.private")
        return receipts(answer, room)

    assert second in alice.sync_until(public)


def test_a_receipt_in_a_thread(alice, bob, room):
    root = alice.send(room, "root")
    relation = {"rel_type": "m.thread", "event_id": root}
    reply = alice.send(room, {"msgtype": "m.text", "body": "reply", "m.relates_to": relation})
    alice.sync()
    bob.post(RECEIPT, room, "m.read", reply, json={"thread_id": root})
    found = alice.sync_until(lambda answer: receipts(answer, room))
    assert found[reply][bob.user_id]["thread_id"] == root


@pytest.mark.ours("Synapse tells one of them")
def test_receipts_of_several_threads_at_one_event(alice, bob, room):
    """Specification: a receipt is of a user, a type and a thread, or none."""
    event = alice.send(room, "read me twice")
    bob.post(RECEIPT, room, "m.read", event, json={})
    bob.post(RECEIPT, room, "m.read", event, json={"thread_id": "main"})
    for client in (alice, alice.login()):
        events = client.sync_until(lambda answer: ephemeral(answer, room, "m.receipt"))
        users = [content["content"][event]["m.read"] for content in events]
        assert [set(receipts) for receipts in users] == [{bob.user_id}] * 2
        threads = [receipts[bob.user_id].get("thread_id") for receipts in users]
        assert sorted(threads, key=str) == [None, "main"]


@pytest.mark.parametrize("thread", ["", "burrow", 7])
def test_malformed_threads(alice, room, thread):
    event = alice.send(room, "root")
    alice.post(RECEIPT, room, "m.read", event, json={"thread_id": thread}, status=400)


def test_a_receipt_of_an_unknown_type(alice, room):
    event = alice.send(room, "root")
    answer = alice.post(RECEIPT, room, "m.burrow", event, json={}, status=400)
    assert answer["errcode"] in ("M_INVALID_PARAM", "M_UNKNOWN")


def test_receipts_are_for_members(alice, carol, room):
    event = alice.send(room, "root")
    carol.post(RECEIPT, room, "m.read", event, json={}, status=403, errcode="M_FORBIDDEN")


def test_read_markers(alice, bob, room):
    event = alice.send(room, "read me")
    bob.sync()
    alice.sync()
    body = {"m.fully_read": event, "m.read": event}
    assert bob.post("rooms/{roomId}/read_markers", room, json=body) == {}
    data = bob.sync_until(lambda a: of_type(joined(a, room).get("account_data", {}).get("events", []), "m.fully_read"))
    assert data[0]["content"] == {"event_id": event}
    assert event in alice.sync_until(lambda answer: receipts(answer, room))


def test_read_markers_of_others_and_malformed_ones(alice, carol, room):
    event = alice.send(room, "read me")
    body = {"m.fully_read": event}
    carol.post("rooms/{roomId}/read_markers", room, json=body, status=403, errcode="M_FORBIDDEN")
    alice.post("rooms/{roomId}/read_markers", room, json={"m.fully_read": 7}, status=400, errcode="M_BAD_JSON")


def test_fully_read_through_the_receipt_endpoint(alice, room):
    event = alice.send(room, "read me")
    alice.post(RECEIPT, room, "m.fully_read", event, json={})
    path = "user/{userId}/rooms/{roomId}/account_data/{type}"
    assert alice.get(path, alice.user_id, room, "m.fully_read") == {"event_id": event}


def test_typing_starts_and_stops(alice, bob, room):
    alice.sync()
    bob.put(TYPING, room, bob.user_id, json={"typing": True, "timeout": 30000})
    event = alice.sync_until(lambda answer: ephemeral(answer, room, "m.typing"))[0]
    assert event["content"] == {"user_ids": [bob.user_id]}
    bob.put(TYPING, room, bob.user_id, json={"typing": False})
    event = alice.sync_until(lambda answer: ephemeral(answer, room, "m.typing"))[0]
    assert event["content"] == {"user_ids": []}


def test_typing_for_a_fraction_of_a_millisecond(alice, bob, room):
    alice.sync()
    bob.put(TYPING, room, bob.user_id, json={"typing": True, "timeout": 29999.75})
    event = alice.sync_until(lambda answer: ephemeral(answer, room, "m.typing"))[0]
    assert event["content"] == {"user_ids": [bob.user_id]}


@pytest.mark.ours("Synapse takes it as a time that is over")
@pytest.mark.parametrize("timeout", [-1, -0.5, "5", [], True])
def test_typing_for_what_is_no_time(bob, room, timeout):
    bob.put(TYPING, room, bob.user_id, json={"typing": True, "timeout": timeout}, status=400, errcode="M_BAD_JSON")


def test_typing_ends_by_itself(alice, bob, room):
    def typing(answer):
        return [event["content"]["user_ids"] for event in ephemeral(answer, room, "m.typing")]

    # A loaded machine may need more than a second to look.
    for timeout in (1000, 10_000):
        bob.put(TYPING, room, bob.user_id, json={"typing": True, "timeout": timeout})
        if [bob.user_id] in typing(alice.sync(timeout=0)):
            break
    else:
        pytest.fail("nobody is told who types")
    alice.sync_until(lambda answer: [] in typing(answer))


def test_typing_for_someone_else(alice, bob, room):
    answer = alice.put(TYPING, room, bob.user_id, json={"typing": True}, status=(400, 403))
    assert answer["errcode"] in ("M_FORBIDDEN", "M_UNKNOWN", "M_INVALID_PARAM")


def test_typing_is_for_members(carol, room):
    carol.put(TYPING, room, carol.user_id, json={"typing": True}, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse takes any value for true")
def test_malformed_typing(alice, room):
    answer = alice.put(TYPING, room, alice.user_id, json={"typing": "yes"}, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN")


def test_presence_is_kept(alice, bob, room):
    alice.put(STATUS, alice.user_id, json={"presence": "unavailable", "status_msg": "digging"})
    status = bob.get(STATUS, alice.user_id)
    assert (status["presence"], status["status_msg"]) == ("unavailable", "digging")


def test_presence_reaches_those_who_share_a_room(alice, bob, room):
    bob.sync()
    alice.put(STATUS, alice.user_id, json={"presence": "online", "status_msg": "digging"})

    def seen(answer):
        events = answer.get("presence", {}).get("events", [])
        return [e for e in events if e["sender"] == alice.user_id and e["content"].get("status_msg") == "digging"]

    assert bob.sync_until(seen)[0]["content"]["presence"] == "online"


def test_presence_of_strangers_is_not_mine(alice, carol):
    carol.put(STATUS, alice.user_id, json={"presence": "online"}, status=403, errcode="M_FORBIDDEN")
    carol.get(STATUS, alice.user_id, status=403, errcode="M_FORBIDDEN")


def presence_of(answer, user):
    """The last state that a sync tells of a user."""
    events = [e for e in answer.get("presence", {}).get("events", []) if e["sender"] == user.user_id]
    return events[-1]["content"]["presence"] if events else None


def test_who_syncs_is_online(alice, bob, room):
    bob.sync()
    alice.sync()
    assert bob.sync_until(lambda answer: presence_of(answer, alice)) == "online"
    assert bob.get(STATUS, alice.user_id)["presence"] == "online"


def test_a_sync_can_say_otherwise(alice, bob, room):
    bob.sync()
    alice.sync(set_presence="offline")
    assert bob.get(STATUS, alice.user_id)["presence"] == "offline"
    alice.sync(set_presence="unavailable")
    assert bob.sync_until(lambda answer: presence_of(answer, alice)) == "unavailable"
    phone = alice.login()
    phone.sync()
    assert bob.sync_until(lambda answer: presence_of(answer, alice)) == "online"
    alice.sync(set_presence="unavailable")
    assert bob.get(STATUS, alice.user_id)["presence"] == "online", "another device is"


def test_a_first_sync_tells_who_is_there(alice, bob, room):
    alice.sync()
    assert presence_of(bob.sync(), alice) == "online"
    presence = {"not_types": ["m.presence"]}
    bob.since = None
    assert presence_of(bob.sync(filter=json.dumps({"presence": presence})), alice) is None


def test_strangers_are_told_nothing_of_presence(alice, carol, room):
    carol.sync()
    alice.sync()
    carol.put(STATUS, carol.user_id, json={"presence": "online", "status_msg": "waiting"})
    answer = carol.sync(timeout=5000)
    assert presence_of(answer, carol) == "online" and presence_of(answer, alice) is None


def test_malformed_presence_in_a_sync(alice):
    alice.get("sync", query={"set_presence": "burrowed"}, status=400)


def test_malformed_presence(alice):
    answer = alice.put(STATUS, alice.user_id, json={"presence": "burrowed"}, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN")
