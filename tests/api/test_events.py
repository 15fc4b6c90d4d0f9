"""Sending and reading events: send, state, redact, event, context, messages (spec: Rooms)."""

import pytest

from harness.client import bodies, of_type, unique
from harness.specification import event_faults

EVENT = "rooms/{roomId}/event/{eventId}"
SEND = "rooms/{roomId}/send/{eventType}/{txnId}"


def test_send_and_get(alice, bob, room):
    event = bob.get(EVENT, room, alice.send(room, "hello"))
    assert event["content"] == {"msgtype": "m.text", "body": "hello"}
    assert (event["sender"], event["room_id"]) == (alice.user_id, room)
    assert not event_faults(event)


def test_a_repeated_transaction_is_one_event(alice, room):
    txn = unique("same")
    assert alice.send(room, "once", txn=txn) == alice.send(room, "once", txn=txn)
    assert bodies(alice.messages(room)["chunk"]) == ["once"]


def test_a_transaction_id_belongs_to_one_device(alice, room):
    txn, other = unique("same"), alice.login()
    assert alice.send(room, "one", txn=txn) != other.send(room, "two", txn=txn)


def test_a_transaction_id_is_told_to_its_device_only(alice, bob, room):
    txn = unique("mine")
    event = alice.send(room, "mine", txn=txn)
    assert alice.get(EVENT, room, event)["unsigned"]["transaction_id"] == txn
    assert "transaction_id" not in bob.get(EVENT, room, event).get("unsigned", {})


def test_sending_is_for_members(alice, carol, room):
    carol.send(room, "hello", status=403, errcode="M_FORBIDDEN")


def test_sending_needs_power(alice, bob, room):
    levels = alice.state(room, "m.room.power_levels")
    alice.set_state(room, "m.room.power_levels", {**levels, "events_default": 50})
    bob.send(room, "hello", status=403, errcode="M_FORBIDDEN")


def test_content_is_an_object(alice, room):
    for body in ([1], "text", 7):
        answer = alice.put(SEND, room, "m.room.message", unique("txn"), json=body, status=400)
        assert answer["errcode"] in ("M_BAD_JSON", "M_NOT_JSON", "M_UNKNOWN")


@pytest.mark.ours("Synapse fails inside on an infinite number")
@pytest.mark.parametrize("value", ["1.5", "9007199254740992", "1e400"])
def test_content_has_only_numbers_of_canonical_json(alice, room, value):
    data = '{"msgtype": "m.text", "body": "x", "number": %s}' % value
    path = (SEND, room, "m.room.message", unique("txn"))
    answer = alice.put(*path, data=data, headers={"Content-Type": "application/json"}, status=400)
    assert answer["errcode"] in ("M_BAD_JSON", "M_NOT_JSON")
    # Its place is not known.
    assert "byte 0" not in answer["error"]


def test_an_event_over_64_kib_is_refused(alice, room):
    answer = alice.send(room, "x" * 65536, status=413)
    assert answer["errcode"] == "M_TOO_LARGE"
    alice.send(room, "x" * 60000)


def test_an_event_type_over_255_bytes_is_refused(alice, room):
    answer = alice.send(room, {}, type="t" * 256, status=(400, 413))
    assert answer["errcode"] in ("M_TOO_LARGE", "M_INVALID_PARAM", "M_BAD_JSON")


def test_any_text_comes_back_as_it_was(alice, bob, room):
    text = 'quotes " and \\ and \u0000 and \u2028 and 🐇 and \x7f and é vs e\u0301'
    event = alice.send(room, text)
    assert bob.get(EVENT, room, event)["content"]["body"] == text


def test_state_round_trip(alice, bob, room):
    event = alice.set_state(room, "org.example.depth", {"metres": 3}, key="left/tunnel")
    assert bob.state(room, "org.example.depth", "left/tunnel") == {"metres": 3}
    assert bob.get(EVENT, room, event)["state_key"] == "left/tunnel"
    whole = bob.get("rooms/{roomId}/state", room)
    assert [e["content"] for e in of_type(whole, "org.example.depth")] == [{"metres": 3}]


def test_state_with_an_empty_key_in_all_spellings(alice, room):
    alice.put("rooms/{roomId}/state/m.room.topic", room, json={"topic": "a"})
    assert alice.get("rooms/{roomId}/state/m.room.topic/", room) == {"topic": "a"}
    assert alice.get("rooms/{roomId}/state/m.room.topic", room) == {"topic": "a"}


def test_state_as_a_whole_event(alice, room):
    event = alice.state(room, "m.room.name", query={"format": "event"})
    assert (event["type"], event["state_key"], event["content"]["name"]) == ("m.room.name", "", "The burrow")
    assert event["event_id"].startswith("$")


def test_missing_state(alice, room):
    alice.state(room, "org.example.none", status=404, errcode="M_NOT_FOUND")


def test_state_is_for_members(carol, room):
    carol.state(room, "m.room.name", status=403, errcode="M_FORBIDDEN")
    carol.get("rooms/{roomId}/state", room, status=403, errcode="M_FORBIDDEN")


def test_state_needs_power(bob, room):
    bob.set_state(room, "m.room.name", {"name": "mine"}, status=403, errcode="M_FORBIDDEN")


def test_state_keyed_by_another_user_is_not_mine(alice, bob, room):
    levels = alice.state(room, "m.room.power_levels")
    alice.set_state(room, "m.room.power_levels", {**levels, "state_default": 0})
    bob.set_state(room, "org.example.own", {}, key=bob.user_id)
    bob.set_state(room, "org.example.own", {}, key=alice.user_id, status=403, errcode="M_FORBIDDEN")


def test_an_alias_that_does_not_point_here_is_refused(alice, room):
    content = {"alias": f"#{unique('none')}:{alice.server_name}"}
    answer = alice.set_state(room, "m.room.canonical_alias", content, status=400)
    assert answer["errcode"] in ("M_BAD_ALIAS", "M_INVALID_PARAM")


def test_redaction(alice, bob, room):
    event = bob.send(room, "regret")
    path = "rooms/{roomId}/redact/{eventId}/{txnId}"
    redaction = bob.put(path, room, event, unique("txn"), json={"reason": "regret"})["event_id"]
    seen = alice.get(EVENT, room, event)
    assert seen["content"] == {}
    assert seen["unsigned"]["redacted_because"]["event_id"] == redaction
    assert seen["unsigned"]["redacted_because"]["content"]["reason"] == "regret"


def test_a_repeated_redaction_is_one_event(alice, room):
    event, txn = alice.send(room, "regret"), unique("txn")
    path = "rooms/{roomId}/redact/{eventId}/{txnId}"
    assert alice.put(path, room, event, txn) == alice.put(path, room, event, txn)


def test_redaction_of_anothers_message_needs_power(alice, bob, room):
    path = "rooms/{roomId}/redact/{eventId}/{txnId}"
    bob.put(path, room, alice.send(room, "mine"), unique("txn"), status=403, errcode="M_FORBIDDEN")
    theirs = bob.send(room, "loud")
    alice.put(path, room, theirs, unique("txn"))
    assert bob.get(EVENT, room, theirs)["content"] == {}


def test_redaction_of_what_only_other_servers_have_needs_power(alice, bob, room):
    path, elsewhere = "rooms/{roomId}/redact/{eventId}/{txnId}", "$" + "a" * 43
    bob.put(path, room, elsewhere, unique("txn"), status=404, errcode="M_NOT_FOUND")
    redaction = alice.put(path, room, elsewhere, unique("txn"))["event_id"]
    assert bob.get(EVENT, room, redaction)["content"]["redacts"] == elsewhere


def test_what_a_room_stands_on_is_not_redacted(alice, room):
    acl = {"allow": ["*"], "deny": ["evil.example"]}
    alice.set_state(room, "m.room.server_acl", acl)
    for type in ("m.room.create", "m.room.server_acl"):
        event = alice.state(room, type, query={"format": "event"})["event_id"]
        alice.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, event, unique("txn"), status=403, errcode="M_FORBIDDEN")
    assert alice.state(room, "m.room.server_acl") == acl


def test_redacted_state_keeps_what_rules_need(alice, room):
    event = alice.state(room, "m.room.join_rules", query={"format": "event"})["event_id"]
    alice.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, event, unique("txn"))
    assert alice.state(room, "m.room.join_rules")["join_rule"] == "invite"


def test_unknown_event(alice, bob, room):
    alice.get(EVENT, room, "$" + "a" * 43, status=404, errcode="M_NOT_FOUND")
    elsewhere = bob.create_room()
    event = bob.send(elsewhere, "private")
    alice.get(EVENT, room, event, status=404, errcode="M_NOT_FOUND")


def filled(alice, room, count):
    return [alice.send(room, str(number)) for number in range(count)]


def test_messages_backwards_and_forwards(alice, bob, room):
    filled(alice, room, 25)
    seen, page = [], bob.messages(room, limit=10)
    while True:
        seen += bodies(page["chunk"])
        if "end" not in page:
            break
        page = bob.messages(room, limit=10, **{"from": page["end"]})
    assert seen == [str(number) for number in reversed(range(25))]
    forwards, page = [], bob.messages(room, "f", limit=10)
    while True:
        forwards += bodies(page["chunk"])
        if "end" not in page or not page["chunk"]:
            break
        page = bob.messages(room, "f", limit=10, **{"from": page["end"]})
    assert forwards == list(reversed(seen))


def test_messages_from_a_sync_token(alice, room):
    filled(alice, room, 3)
    token = alice.sync()["next_batch"]
    filled(alice, room, 2)
    assert bodies(alice.messages(room, **{"from": token})["chunk"]) == ["2", "1", "0"]
    assert bodies(alice.messages(room, "f", **{"from": token})["chunk"]) == ["0", "1"]


def test_messages_with_a_filter(alice, room):
    filled(alice, room, 3)
    alice.send(room, {"depth": 1}, type="org.example.dig")
    page = alice.messages(room, filter='{"types": ["org.example.dig"]}')
    assert [event["type"] for event in page["chunk"]] == ["org.example.dig"]


def test_messages_bring_lazily_loaded_members(alice, bob, room):
    bob.send(room, "here")
    page = alice.messages(room, limit=1, filter='{"lazy_load_members": true}')
    assert [event["state_key"] for event in page["state"]] == [bob.user_id]


@pytest.mark.parametrize("query", [{"dir": "x"}, {"dir": "b", "from": "burrow"}, {"dir": "b", "limit": "many"}])
def test_malformed_messages(alice, room, query):
    answer = alice.get("rooms/{roomId}/messages", room, query=query, status=400)
    assert answer["errcode"] in ("M_INVALID_PARAM", "M_UNKNOWN", "M_BAD_JSON")


def test_messages_are_for_members(carol, room):
    query = {"dir": "b"}
    carol.get("rooms/{roomId}/messages", room, query=query, status=403, errcode="M_FORBIDDEN")


def test_context(alice, bob, room):
    events = filled(alice, room, 9)
    path = "rooms/{roomId}/context/{eventId}"
    answer = bob.get(path, room, events[4], query={"limit": 4})
    assert answer["event"]["event_id"] == events[4]
    assert bodies(answer["events_before"]) == ["3", "2"]
    assert bodies(answer["events_after"]) == ["5", "6"]
    assert "m.room.create" in {event["type"] for event in answer["state"]}
    older = bob.messages(room, limit=2, **{"from": answer["start"]})
    assert bodies(older["chunk"]) == ["1", "0"]
    newer = bob.messages(room, "f", limit=2, **{"from": answer["end"]})
    assert bodies(newer["chunk"]) == ["7", "8"]


def test_context_of_an_unknown_event(alice, room):
    path = "rooms/{roomId}/context/{eventId}"
    alice.get(path, room, "$" + "a" * 43, status=404, errcode="M_NOT_FOUND")


@pytest.mark.parametrize("visibility, sees", [("joined", 0), ("invited", 0), ("shared", 3), ("world_readable", 3)])
def test_history_visibility(alice, bob, visibility, sees):
    content = {"history_visibility": visibility}
    rule = {"type": "m.room.history_visibility", "state_key": "", "content": content}
    room = alice.create_room(preset="public_chat", initial_state=[rule])
    filled(alice, room, 3)
    bob.join(room)
    alice.send(room, "after")
    assert len(bodies(bob.messages(room, limit=50)["chunk"])) == sees + 1


def test_a_world_readable_room_shows_itself_to_strangers(alice, carol):
    content = {"history_visibility": "world_readable"}
    rule = {"type": "m.room.history_visibility", "state_key": "", "content": content}
    room = alice.create_room(preset="public_chat", initial_state=[rule], name="Window")
    event = alice.send(room, "look")
    assert carol.state(room, "m.room.name")["name"] == "Window"
    assert carol.get(EVENT, room, event)["content"]["body"] == "look"
    assert bodies(carol.messages(room)["chunk"]) == ["look"]
