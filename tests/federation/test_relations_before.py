"""What relates to events from before somebody came (client-server API, "Forming relationships between events", "Threading",
"Threaded read receipts"): history comes page by page, the latest first, and so relations come before what they relate to."""

import json

import pytest

from harness.client import joined
from harness.events import id_of
from harness.rooms import see, via
from harness.senders import room_messages

ALL = "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"
THREADS = "/_matrix/client/v1/rooms/{roomId}/threads"
RECEIPT = "rooms/{roomId}/receipt/{receiptType}/{eventId}"
# More than other servers tell at once.
BETWEEN = 250
BY_THREAD = json.dumps({"room": {"timeline": {"unread_thread_notifications": True}}})


@pytest.fixture
def copy(resident):
    """A room of the resident's."""
    return resident.create()


def place_message(resident, copy, body, **more):
    return id_of(resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": body, **more}))


def relation(type, event_id, **more):
    return {"m.relates_to": {"rel_type": type, "event_id": event_id, **more}}


def ids(answer):
    return [event["event_id"] for event in answer["chunk"]]


def test_relations_are_told_once_history_reaches_what_they_relate_to(alice, resident, copy):
    root, mistaken = place_message(resident, copy, "root"), place_message(resident, copy, "frist")
    for number in range(BETWEEN):
        place_message(resident, copy, f"{number}")
    earlier = place_message(resident, copy, "one", **relation("m.thread", root))
    later = place_message(resident, copy, "two", **relation("m.thread", root))
    new = {"m.new_content": {"msgtype": "m.text", "body": "first"}}
    edit = place_message(resident, copy, "* first", **new, **relation("m.replace", mistaken))
    reaction = id_of(resident.next(copy, "m.reaction", relation("m.annotation", root, key="🥕")))
    alice.join(copy.room_id, query=via(resident))

    seen = {event["event_id"]: event for event in room_messages(alice, copy.room_id, limit=100)}
    assert len(seen) == BETWEEN + 5
    thread = seen[root]["unsigned"]["m.relations"]["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (2, later)
    assert seen[mistaken]["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
    assert ids(alice.get(ALL, copy.room_id, root)) == [reaction, later, earlier]
    assert ids(alice.get(ALL + "/{relType}", copy.room_id, root, "m.annotation")) == [reaction]
    page = alice.get(ALL, copy.room_id, root, query={"limit": 1, "dir": "f"})
    rest = alice.get(ALL, copy.room_id, root, query={"limit": 2, "dir": "f", "from": page["next_batch"]})
    assert (ids(page), ids(rest)) == ([earlier], [later, reaction])
    assert ids(alice.get(ALL, copy.room_id, mistaken)) == [edit]
    assert ids(alice.get(THREADS, copy.room_id)) == [root]


def test_a_thread_from_before_is_counted_and_read_apart(server, alice, resident, copy):
    root = place_message(resident, copy, "root")
    alice.join(copy.room_id, query=via(resident))

    def reply(body):
        event = resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": body, **relation("m.thread", root)})
        assert resident.transact(server, [event]) == {id_of(event): {}}
        see(alice, copy.room_id, id_of(event))
        return id_of(event)

    def unread():
        """In the main timeline, and in each thread."""
        room = joined(alice.login().sync(filter=BY_THREAD), copy.room_id)
        threads = room.get("unread_thread_notifications", {})
        counts = {thread: counts["notification_count"] for thread, counts in threads.items()}
        return room["unread_notifications"]["notification_count"], counts

    first = reply("one")
    assert unread() == (0, {root: 1})
    alice.post(RECEIPT, copy.room_id, "m.read", first, json={"thread_id": "main"}, status=400, errcode="M_INVALID_PARAM")
    alice.post(RECEIPT, copy.room_id, "m.read", first, json={"thread_id": root})
    assert unread() == (0, {})
    # The same once the root is here.
    second = reply("two")
    assert root in [event["event_id"] for event in room_messages(alice, copy.room_id, limit=100)]
    assert unread() == (0, {root: 1})
    alice.post(RECEIPT, copy.room_id, "m.read", second, json={"thread_id": root})
    assert unread() == (0, {})
