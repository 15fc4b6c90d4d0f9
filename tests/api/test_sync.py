"""The old reliable sync: first and incremental, filters, lazy loading, gaps, counts, long poll (spec: Syncing)."""

import json
import threading
import time

import pytest

from harness.client import bodies, joined, of_type, timeline, unique
from harness.events import hashed, id_of
from harness.specification import pdu_faults


def state(answer, room, key="state"):
    events = joined(answer, room).get(key, {}).get("events", [])
    return {(event["type"], event["state_key"]): event for event in events}


def in_timeline(answer, room):
    return [event["event_id"] for event in timeline(answer, room)]


def filtered(**parts):
    return json.dumps(parts)


def test_the_first_sync_has_everything(alice, bob, room):
    event = alice.send(room, "hello")
    answer = bob.sync()
    assert event in in_timeline(answer, room)
    known = set(state(answer, room)) | {(e["type"], e.get("state_key")) for e in timeline(answer, room)}
    assert {("m.room.create", ""), ("m.room.member", alice.user_id), ("m.room.member", bob.user_id)} <= known
    types = {event["type"] for event in answer["account_data"]["events"]}
    assert "m.push_rules" in types


def test_an_incremental_sync_has_what_is_new(alice, bob, room):
    bob.sync()
    events = [alice.send(room, "one"), alice.send(room, "two")]
    answer = bob.sync()
    assert in_timeline(answer, room) == events
    assert not joined(answer, room)["timeline"].get("limited")
    assert room not in bob.sync().get("rooms", {}).get("join", {})


def test_the_same_token_gives_the_same_news(alice, bob, room):
    token = bob.sync()["next_batch"]
    event = alice.send(room, "again")
    for _ in range(2):
        assert in_timeline(bob.sync(since=token), room) == [event]


def test_events_come_in_the_order_they_were_sent(alice, bob, room):
    bob.sync()
    sent = [(alice, bob)[number % 2].send(room, str(number)) for number in range(8)]
    assert in_timeline(bob.sync(), room) == sent


def test_a_gap_is_limited_and_can_be_filled(alice, bob, room):
    token = bob.sync()["next_batch"]
    sent = [alice.send(room, str(number)) for number in range(30)]
    answer = bob.sync(filter=filtered(room={"timeline": {"limit": 5}}))
    part = joined(answer, room)["timeline"]
    assert part["limited"] is True
    assert in_timeline(answer, room) == sent[-5:]
    query = {"dir": "b", "from": part["prev_batch"], "to": token, "limit": 100}
    older = bob.get("rooms/{roomId}/messages", room, query=query)["chunk"]
    assert [event["event_id"] for event in older] == sent[-6::-1]


def test_state_that_changed_in_a_gap_is_told(alice, bob, room):
    bob.sync()
    alice.set_state(room, "m.room.topic", {"topic": "in the gap"})
    for number in range(10):
        alice.send(room, str(number))
    answer = bob.sync(filter=filtered(room={"timeline": {"limit": 3}}))
    assert state(answer, room)["m.room.topic", ""]["content"] == {"topic": "in the gap"}
    assert set(state(answer, room)) == {("m.room.topic", "")}


def test_state_within_the_timeline_is_not_repeated(alice, bob, room):
    bob.sync()
    event = alice.set_state(room, "m.room.topic", {"topic": "in the timeline"})
    answer = bob.sync()
    assert in_timeline(answer, room) == [event]
    assert state(answer, room) == {}


@pytest.mark.ours("Synapse knows it by its unstable name only, and when it is told to")
@pytest.mark.parametrize("prefix", ["", "org.matrix.msc4222."])
def test_state_after(alice, bob, room, prefix):
    """Who asks by the name that it had before is answered by that."""
    asked = {f"{prefix}use_state_after": "true"}
    bob.sync(**asked)
    alice.set_state(room, "m.room.topic", {"topic": "after"})
    answer = bob.sync(**asked)
    assert "state" not in joined(answer, room)
    assert state(answer, room, f"{prefix}state_after")["m.room.topic", ""]["content"] == {"topic": "after"}


@pytest.mark.ours("Synapse knows it by its unstable name only")
def test_state_after_is_there_when_it_is_empty(alice, bob, room):
    """By its absence a client would know that the server does not give it."""
    path = "rooms/{roomId}/receipt/{receiptType}/{eventId}"
    bob.sync(use_state_after="true")
    event = alice.send(room, "nothing but a message")
    assert joined(bob.sync(use_state_after="true"), room)["state_after"] == {"events": []}
    alice.post(path, room, "m.read", event)
    part = bob.sync_until(lambda answer: joined(answer, room), use_state_after="true")
    assert part["state_after"] == {"events": []}
    bob.leave(room)
    left = bob.sync(use_state_after="true")["rooms"]["leave"][room]
    assert "state" not in left and "state_after" in left


@pytest.mark.ours("Synapse knows it by its unstable name only")
def test_state_after_of_a_declined_invite(alice, bob):
    room = alice.create_room(preset="private_chat", invite=[bob.user_id])
    bob.sync()
    bob.leave(room)
    left = bob.sync(use_state_after="true")["rooms"]["leave"][room]
    assert "state" not in left and left["state_after"] == {"events": []}


@pytest.mark.ours("Synapse knows it by its unstable name only")
def test_state_after_of_a_first_sync_is_the_current_state(alice, bob, room):
    alice.set_state(room, "m.room.topic", {"topic": "now"})
    answer = bob.sync(use_state_after="true")
    now = state(answer, room, "state_after")
    assert now["m.room.topic", ""]["content"] == {"topic": "now"}
    assert ("m.room.member", bob.user_id) in now


def test_full_state(alice, bob, room):
    bob.sync()
    alice.send(room, "news")
    answer = bob.sync(full_state="true")
    whole = set(state(answer, room))
    assert {("m.room.create", ""), ("m.room.member", alice.user_id), ("m.room.power_levels", "")} <= whole


def test_a_new_room_comes_with_its_state(alice, bob):
    bob.sync()
    room = alice.create_room(preset="public_chat", name="New")
    for number in range(12):
        alice.send(room, str(number))
    bob.join(room)
    answer = bob.sync_until(lambda a: a if joined(a, room) else None)
    known = set(state(answer, room)) | {(e["type"], e.get("state_key")) for e in timeline(answer, room)}
    assert {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", alice.user_id)} <= known
    assert joined(answer, room)["timeline"]["limited"] is True


LAZY = filtered(room={"state": {"lazy_load_members": True}, "timeline": {"limit": 1}})


def members(answer, room, key="state"):
    """The users whose membership events are in a list of state."""
    return {user for type, user in state(answer, room, key) if type == "m.room.member"}


def test_lazy_loading_brings_the_senders_only(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    alice.send(room, "hello")
    assert members(bob.sync(filter=LAZY), room) == {alice.user_id, bob.user_id}


def test_lazy_loading_brings_a_new_sender_later(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    alice.send(room, "hello")
    bob.sync(filter=LAZY)
    alice.send(room, "one")
    assert members(bob.sync(filter=LAZY), room) == set()
    carol.send(room, "two")
    assert members(bob.sync(filter=LAZY), room) == {carol.user_id}
    carol.send(room, "three")
    assert members(bob.sync(filter=LAZY), room) == set()


def test_lazy_loading_brings_whom_a_room_is_named_after(alice, bob, carol):
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    carol.join(room)
    alice.send(room, "hello")
    answer = bob.sync(filter=LAZY)
    assert set(joined(answer, room)["summary"]["m.heroes"]) == {alice.user_id, carol.user_id}
    assert members(answer, room) == {alice.user_id, bob.user_id, carol.user_id}
    alice.send(room, "nothing new")
    assert members(bob.sync(filter=LAZY), room) == set()


def told_of(client, room, sender, **query):
    """Has somebody speak, and returns whose memberships the next sync brings."""
    sender.send(room, "here")
    return members(client.sync(filter=LAZY, **query), room)


def test_lazy_loading_begins_anew_with_the_first_sync(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    alice.send(room, "hello")
    bob.sync(filter=LAZY)
    assert told_of(bob, room, carol) == {carol.user_id}
    assert told_of(bob, room, carol) == set()
    assert told_of(bob, room, alice) == set()
    bob.since = None
    assert members(bob.sync(filter=LAZY), room) == {alice.user_id, bob.user_id}
    assert told_of(bob, room, carol) == {carol.user_id}


@pytest.mark.ours("Synapse begins anew with a first sync alone")
def test_lazy_loading_begins_anew_with_a_room_that_is_entered_again(alice, bob, carol):
    room = alice.create_room(preset="public_chat", name="The burrow")
    bob.join(room)
    carol.join(room)
    alice.send(room, "hello")
    bob.sync(filter=LAZY)
    assert told_of(bob, room, carol) == {carol.user_id}
    bob.leave(room)
    bob.post("rooms/{roomId}/forget", room)
    bob.sync(filter=LAZY)
    bob.join(room)
    assert told_of(bob, room, alice) == {alice.user_id, bob.user_id}
    assert told_of(bob, room, carol) == {carol.user_id}


@pytest.mark.ours("Synapse takes what it has told for received")
def test_lazy_loading_tells_again_what_was_lost(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    alice.send(room, "hello")
    since = bob.sync(filter=LAZY)["next_batch"]
    for _ in range(2):
        assert told_of(bob, room, carol, since=since) == {carol.user_id}


def test_lazy_loading_tells_of_changes_in_a_gap(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    alice.send(room, "hello")
    bob.sync(filter=LAZY)
    carol.leave(room)
    alice.send(room, "who was that?")
    answer = bob.sync(filter=LAZY)
    assert state(answer, room)["m.room.member", carol.user_id]["content"]["membership"] == "leave"
    assert joined(answer, room)["summary"]["m.joined_member_count"] == 2


@pytest.mark.ours("Synapse knows it by its unstable name only")
def test_lazy_loading_tells_of_changes_in_the_state_after(alice, bob, carol, room):
    alice.invite(room, carol)
    carol.join(room)
    bob.sync(filter=LAZY, use_state_after="true")
    alice.post("rooms/{roomId}/kick", room, json={"user_id": carol.user_id})
    answer = bob.sync(filter=LAZY, use_state_after="true")
    after = state(answer, room, "state_after")["m.room.member", carol.user_id]
    assert after["content"]["membership"] == "leave"


def test_the_room_summary_has_heroes_and_counts(alice, bob):
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    summary = joined(alice.sync(filter=filtered(room={"state": {"lazy_load_members": True}})), room)["summary"]
    assert summary["m.heroes"] == [bob.user_id]
    assert summary["m.joined_member_count"] == 2
    assert summary.get("m.invited_member_count", 0) == 0


@pytest.mark.ours("Synapse gives a summary with memberships alone")
def test_a_room_that_loses_its_name_has_heroes(alice, bob):
    room = alice.create_room(preset="public_chat", name="The burrow")
    bob.join(room)
    alice.send(room, "hello")
    assert "m.heroes" not in joined(bob.sync(filter=LAZY), room)["summary"]
    alice.set_state(room, "m.room.name", {})
    assert joined(bob.sync(filter=LAZY), room)["summary"]["m.heroes"] == [alice.user_id]
    name = alice.set_state(room, "m.room.name", {"name": "The warren"})
    assert "m.heroes" not in joined(bob.sync(filter=LAZY), room)["summary"]
    alice.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, name, unique("txn"))
    assert joined(bob.sync(filter=LAZY), room)["summary"]["m.heroes"] == [alice.user_id]


@pytest.mark.ours("Synapse gives a summary with memberships alone")
def test_who_is_shown_no_members_is_told_how_many_there_are(alice, bob, carol):
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    no_members = {"not_types": ["m.room.member"]}
    shown = filtered(room={"state": no_members, "timeline": no_members})
    bob.sync(filter=shown)
    carol.join(room)
    assert joined(bob.sync(filter=shown), room)["summary"]["m.joined_member_count"] == 3
    alice.send(room, "hello")
    assert "summary" not in joined(bob.sync(filter=shown), room)


@pytest.mark.ours("Synapse has those who are in it before those who are invited")
def test_heroes_are_those_who_came_first(alice, bob, carol):
    users = [alice.register("hero") for _ in range(5)]
    room = alice.create_room(preset="public_chat")
    for user in reversed(users):
        user.join(room)
    alice.invite(room, carol)
    bob.join(room)
    summary = joined(bob.sync(), room)["summary"]
    assert summary["m.heroes"] == [user.user_id for user in (alice, *reversed(users[1:]))]
    users[4].leave(room)
    users[3].leave(room)
    heroes = [user.user_id for user in (alice, *reversed(users[:3]), carol)]
    assert joined(bob.sync(), room)["summary"]["m.heroes"] == heroes


def test_stored_filters(alice, bob, room):
    path = "user/{userId}/filter"
    definition = {"room": {"timeline": {"types": ["org.example.dig"], "limit": 10}}}
    filter_id = alice.post(path, alice.user_id, json=definition)["filter_id"]
    assert not filter_id.startswith("{")
    assert alice.get(path + "/{filterId}", alice.user_id, filter_id) == definition
    alice.send(room, "not this")
    event = alice.send(room, {}, type="org.example.dig")
    assert in_timeline(alice.sync(filter=filter_id), room) == [event]
    bob.get(path + "/{filterId}", alice.user_id, filter_id, status=403, errcode="M_FORBIDDEN")
    alice.get(path + "/{filterId}", alice.user_id, "98765", status=404, errcode="M_NOT_FOUND")


@pytest.mark.parametrize(
    "part, seen",
    [
        ({"types": ["m.room.mess*"]}, ["text", "image"]),
        ({"not_types": ["m.room.message"], "types": ["org.example.*", "m.room.message"]}, [None]),
        ({"contains_url": True}, ["image"]),
        ({"contains_url": False, "types": ["m.room.message"]}, ["text"]),
        ({"senders": []}, []),
        ({"rooms": []}, []),
        ({"limit": 1}, [None]),
    ],
)
def test_timeline_filters(alice, bob, room, part, seen):
    bob.sync()
    alice.send(room, "text")
    alice.send(room, {"msgtype": "m.image", "body": "image", "url": "mxc://example.org/a"})
    alice.send(room, {}, type="org.example.dig")
    answer = bob.sync(filter=filtered(room={"timeline": part}))
    assert [event["content"].get("body") for event in timeline(answer, room)] == seen


def test_filters_by_sender_and_room(alice, bob, room):
    other = bob.create_room()
    bob.sync()
    alice.send(room, "alice")
    bob.send(room, "bob")
    bob.send(other, "elsewhere")
    token = bob.since
    answer = bob.sync(filter=filtered(room={"timeline": {"not_senders": [alice.user_id]}}))
    assert bodies(timeline(answer, room)) == ["bob"]
    answer = bob.sync(since=token, filter=filtered(room={"rooms": [other]}))
    assert set(answer["rooms"]["join"]) == {other}
    answer = bob.sync(since=token, filter=filtered(room={"not_rooms": [other]}))
    assert set(answer["rooms"]["join"]) == {room}


@pytest.mark.parametrize(
    "key, type",
    [
        ("ephemeral", "m.receipt"),
        pytest.param("account_data", "org.example.dig", marks=pytest.mark.ours("Synapse does not ask for the room")),
    ],
)
def test_filters_of_a_part_by_room(alice, bob, room, key, type):
    """What a part leaves out of a room, the others still tell."""
    other = bob.create_room()
    bob.sync()
    for each, sender in ((room, alice), (other, bob)):
        event = sender.send(each, "hello")
        bob.post("rooms/{roomId}/receipt/{receiptType}/{eventId}", each, "m.read", event)
        bob.put("user/{userId}/rooms/{roomId}/account_data/{type}", bob.user_id, each, "org.example.dig", json={"deep": 1})
    token = bob.since

    def told(each, only):
        part = joined(bob.sync(since=token, filter=filtered(room={key: only})), each)
        assert part["timeline"]["events"]
        return [event["type"] for event in part.get(key, {}).get("events", [])]

    for only in ({"not_rooms": [room]}, {"rooms": [other]}):
        assert type not in told(room, only)
        assert type in told(other, only)


@pytest.mark.ours("Synapse shows the event that made a room of version 12 all the same")
def test_filters_of_the_state_by_room(alice, room):
    first = filtered(room={"state": {"not_rooms": [room]}, "timeline": {"limit": 1}})
    answer = alice.sync(filter=first)
    assert timeline(answer, room) and not state(answer, room)


def test_the_format_of_federation(alice, bob, room):
    bob.sync()
    alice.set_state(room, "m.room.topic", {"topic": "in the gap"})
    for number in range(2):
        alice.send(room, str(number))
    answer = bob.sync(filter=filtered(event_format="federation", room={"timeline": {"limit": 2}}))
    events = timeline(answer, room) + list(state(answer, room).values())
    assert len(events) == 3
    for event in events:
        assert not pdu_faults(event)
        assert event["room_id"] == room
        # Nothing of it is missing or moved, or it would have another id.
        bare = {name: value for name, value in event.items() if name not in ("event_id", "unsigned")}
        assert id_of(bare) == event["event_id"]
        assert hashed(bare)["hashes"] == event["hashes"]


def test_event_fields(alice, room):
    alice.send(room, "hello")
    part = {"event_fields": ["type", "content.body", "event_id", "sender", "origin_server_ts"]}
    events = timeline(alice.sync(filter=filtered(**part, room={"timeline": {"limit": 1}, "state": {"types": []}})), room)
    assert events[0]["content"] == {"body": "hello"}


@pytest.mark.ours("Synapse fails inside on values of another type")
@pytest.mark.parametrize("body", [{"room": 7}, {"room": {"timeline": {"limit": "x"}}}, {"event_fields": "type"}])
def test_malformed_filters(alice, body):
    alice.post("user/{userId}/filter", alice.user_id, json=body, status=400)
    alice.get("sync", query={"filter": json.dumps(body)}, status=400)


@pytest.mark.parametrize("query", [{"since": "burrow"}, {"timeout": "long"}, {"filter": "{"}, {"full_state": "maybe"}])
def test_malformed_syncs(alice, query):
    alice.get("sync", query=query, status=400)


def test_rooms_left_are_told_once_and_later_only_when_asked(alice, bob, room):
    bob.sync()
    bob.leave(room)
    assert room in bob.sync()["rooms"]["leave"]
    assert room not in bob.login().sync().get("rooms", {}).get("leave", {})
    answer = bob.login().sync(filter=filtered(room={"include_leave": True}))
    assert room in answer["rooms"]["leave"]


@pytest.mark.parametrize("left_out", [[], ["timeline"], ["state"], ["timeline", "state"]], ids="+".join)
def test_a_room_left_has_both_lists_be_they_empty(alice, bob, room, left_out):
    """Some clients end when one is not there, and come back to the same answer."""
    query = {"filter": filtered(room={part: {"types": []} for part in left_out})}
    bob.sync(**query)
    alice.post("rooms/{roomId}/kick", room, json={"user_id": bob.user_id})
    left = bob.sync(**query)["rooms"]["leave"][room]
    assert {"timeline", "state"} <= left.keys()
    assert bool(left["timeline"]["events"]) == ("timeline" not in left_out)


def test_one_who_left_does_not_see_what_follows(alice, bob, room):
    bob.sync()
    alice.send(room, "before")
    bob.leave(room)
    alice.send(room, "after")
    part = bob.sync()["rooms"]["leave"][room]["timeline"]["events"]
    assert bodies(part) == ["before"]


def unread(answer, room):
    return joined(answer, room)["unread_notifications"]


def test_notification_counts(alice, bob, room):
    bob.sync()
    event = alice.send(room, "one")
    mention = {"msgtype": "m.text", "body": "look", "m.mentions": {"user_ids": [bob.user_id]}}
    last = alice.send(room, mention)
    assert unread(bob.sync(), room) == {"notification_count": 2, "highlight_count": 1}
    bob.post("rooms/{roomId}/receipt/{receiptType}/{eventId}", room, "m.read", event, json={})
    assert unread(bob.sync_until(lambda a: a if joined(a, room) else None), room)["notification_count"] == 1
    bob.post("rooms/{roomId}/receipt/{receiptType}/{eventId}", room, "m.read", last, json={})
    counts = unread(bob.sync_until(lambda a: a if joined(a, room) else None), room)
    assert counts == {"notification_count": 0, "highlight_count": 0}


def test_ones_own_messages_do_not_count(alice, bob, room):
    alice.sync()
    alice.send(room, "mine")
    assert unread(alice.sync(), room) == {"notification_count": 0, "highlight_count": 0}


def test_counts_by_thread(alice, bob, room):
    bob.sync()
    root = alice.send(room, "root")
    alice.send(room, {"msgtype": "m.text", "body": "reply", "m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    answer = bob.sync(filter=filtered(room={"timeline": {"unread_thread_notifications": True}}))
    assert unread(answer, room)["notification_count"] == 1
    assert joined(answer, room)["unread_thread_notifications"][root]["notification_count"] == 1


def test_a_long_poll_waits_for_news(alice, bob, room):
    # Who shows no presence is not woken by their own.
    bob.sync(set_presence="offline")
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(bob.sync(timeout=20000, set_presence="offline")))
    start = time.monotonic()
    waiting.start()
    event = alice.send(room, "wake up")
    waiting.join()
    assert in_timeline(answers[0], room) == [event]
    assert time.monotonic() - start < 15


def test_a_long_poll_ends_with_nothing(alice):
    # Who shows no presence is not woken by their own.
    alice.sync(set_presence="offline")
    while alice.sync(set_presence="offline").get("account_data", {}).get("events"):
        pass
    start = time.monotonic()
    answer = alice.sync(timeout=300, set_presence="offline")
    assert 0.3 <= time.monotonic() - start < 5
    assert answer.get("rooms", {}).get("join", {}) == {}


def test_many_wait_and_all_are_woken(nobody, alice):
    room = alice.create_room(preset="public_chat")
    others = [nobody.register("waiter") for _ in range(10)]
    for other in others:
        other.join(room)
        other.sync()
    for other in others:
        other.sync()
    answers = {}

    def wait(other):
        answers[other.user_id] = other.sync_until(lambda a: [e for e in timeline(a, room) if e["type"] == "m.room.message"])

    threads = [threading.Thread(target=wait, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    event = alice.send(room, "all of you")
    for thread in threads:
        thread.join()
    assert {user: [e["event_id"] for e in events] for user, events in answers.items()} == {
        other.user_id: [event] for other in others
    }


def test_an_echo_names_its_transaction(alice, bob, room):
    alice.sync()
    bob.sync()
    txn = unique("echo")
    alice.send(room, "echo", txn=txn)
    assert timeline(alice.sync(), room)[0]["unsigned"]["transaction_id"] == txn
    assert "transaction_id" not in timeline(bob.sync(), room)[0].get("unsigned", {})


def test_replaced_state_names_what_it_replaces(alice, bob, room):
    first = alice.set_state(room, "m.room.topic", {"topic": "one"})
    bob.sync()
    alice.set_state(room, "m.room.topic", {"topic": "two"})
    unsigned = timeline(bob.sync(), room)[0]["unsigned"]
    assert unsigned["prev_content"] == {"topic": "one"}
    assert unsigned["replaces_state"] == first


def test_a_redaction_comes_as_an_event(alice, bob, room):
    event = alice.send(room, "regret")
    bob.sync()
    alice.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, event, unique("txn"))
    seen = of_type(timeline(bob.sync(), room), "m.room.redaction")
    assert seen[0]["content"]["redacts"] == event


def test_a_direct_invitation_says_so(alice, bob):
    bob.sync()
    room = alice.create_room(preset="private_chat", is_direct=True, invite=[bob.user_id])
    invited = bob.sync_until(lambda answer: answer.get("rooms", {}).get("invite", {}).get(room))
    mine = [e for e in invited["invite_state"]["events"] if e.get("state_key") == bob.user_id]
    assert mine[0]["content"]["is_direct"] is True
