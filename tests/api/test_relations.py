"""Relations, edits, reactions and threads (spec: Forming relationships between events, Threading)."""

import pytest

from harness.client import joined

ALL = "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"
THREADS = "/_matrix/client/v1/rooms/{roomId}/threads"
EVENT = "rooms/{roomId}/event/{eventId}"


def react(client, room, event, key):
    relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
    return client.send(room, {"m.relates_to": relation}, type="m.reaction")


def edit(client, room, event, body):
    relation = {"rel_type": "m.replace", "event_id": event}
    content = {
        "msgtype": "m.text", "body": f"* {body}",
        "m.new_content": {"msgtype": "m.text", "body": body}, "m.relates_to": relation,
    }  # fmt: skip
    return client.send(room, content)


def reply_in_thread(client, room, root, body):
    relation = {"rel_type": "m.thread", "event_id": root}
    return client.send(room, {"msgtype": "m.text", "body": body, "m.relates_to": relation})


def ids(answer):
    return [event["event_id"] for event in answer["chunk"]]


def test_relations_newest_first(alice, bob, room):
    root = alice.send(room, "root")
    reaction, reply = react(bob, room, root, "🥕"), reply_in_thread(bob, room, root, "in the thread")
    assert ids(alice.get(ALL, room, root)) == [reply, reaction]
    assert ids(alice.get(ALL, room, root, query={"dir": "f"})) == [reaction, reply]
    assert ids(alice.get(ALL + "/{relType}", room, root, "m.annotation")) == [reaction]
    assert ids(alice.get(ALL + "/{relType}/{eventType}", room, root, "m.thread", "m.room.message")) == [reply]
    assert ids(alice.get(ALL + "/{relType}/{eventType}", room, root, "m.thread", "m.reaction")) == []


def test_relations_in_pages(alice, bob, room):
    root = alice.send(room, "root")
    replies = [reply_in_thread(bob, room, root, str(number)) for number in range(5)]
    seen, page = [], alice.get(ALL, room, root, query={"limit": 2})
    while True:
        seen += ids(page)
        if "next_batch" not in page:
            break
        page = alice.get(ALL, room, root, query={"limit": 2, "from": page["next_batch"]})
    assert seen == replies[::-1]


def test_relations_of_relations(alice, bob, room):
    root = alice.send(room, "root")
    reply = reply_in_thread(bob, room, root, "reply")
    reaction = react(alice, room, reply, "🥕")
    assert ids(alice.get(ALL, room, root)) == [reply]
    assert ids(alice.get(ALL, room, root, query={"recurse": "true"})) == [reaction, reply]


def in_pages(client, room, event, direction, limit):
    """All relations of an event and those of these, page by page."""
    query, seen = {"recurse": "true", "dir": direction, "limit": limit}, []
    while True:
        page = client.get(ALL, room, event, query=query)
        assert len(page["chunk"]) <= limit and page["recursion_depth"] >= 3
        seen += ids(page)
        if "next_batch" not in page:
            return seen
        query["from"] = page["next_batch"]


@pytest.mark.parametrize("limit", [7, 40, 100])
def test_relations_of_relations_in_pages(alice, bob, room, limit):
    """Everything once, in both directions; reactions come long after what they are to."""
    root = alice.send(room, "root")
    sent, replies = [], []
    for number in range(60):
        replies.append(reply_in_thread(alice, room, root, str(number)))
        alice.send(room, "beside the thread")
        sent.append(replies[-1])
        if number >= 30:
            sent.append(react(bob, room, replies[number - 30], "🥕"))
    sent += [react(bob, room, reply, "🥕") for reply in replies[30:]]
    sent.append(edit(alice, room, replies[0], "edited"))
    assert in_pages(bob, room, root, "f", limit) == sent
    assert in_pages(bob, room, root, "b", limit) == sent[::-1]


def test_relations_of_an_unknown_event(alice, room):
    alice.get(ALL, room, "$" + "a" * 43, status=404)


def test_relations_are_for_members(alice, carol, room):
    event = alice.send(room, "root")
    assert carol.get(ALL, room, event, status=(403, 404))["errcode"] in ("M_FORBIDDEN", "M_NOT_FOUND")


def test_a_redacted_relation_is_gone(alice, bob, room):
    root = alice.send(room, "root")
    reaction = react(bob, room, root, "🥕")
    bob.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, reaction, "redact-reaction")
    assert ids(alice.get(ALL, room, root)) == []


def test_an_edit_is_bundled(alice, bob, room):
    root = alice.send(room, "frist")
    edits = [edit(alice, room, root, body) for body in ("furst", "first")]
    # Of two in the same millisecond the one with the greater id counts.
    times = {bob.get(EVENT, room, id)["origin_server_ts"]: id for id in sorted(edits)}
    seen = bob.get(EVENT, room, root)
    assert seen["content"]["body"] == "frist"
    assert seen["unsigned"]["m.relations"]["m.replace"]["event_id"] == times[max(times)]


def test_an_edit_by_another_user_is_not_bundled(alice, bob, room):
    root = alice.send(room, "mine")
    edit(bob, room, root, "yours")
    assert "m.replace" not in alice.get(EVENT, room, root).get("unsigned", {}).get("m.relations", {})


def test_the_same_reaction_twice_is_refused(alice, room):
    root = alice.send(room, "root")
    react(alice, room, root, "🥕")
    relation = {"rel_type": "m.annotation", "event_id": root, "key": "🥕"}
    answer = alice.send(room, {"m.relates_to": relation}, type="m.reaction", status=400)
    assert answer["errcode"] == "M_DUPLICATE_ANNOTATION"


def test_a_thread_is_bundled(alice, bob, room):
    root = alice.send(room, "root")
    reply_in_thread(bob, room, root, "one")
    last = reply_in_thread(bob, room, root, "two")
    mine = alice.get(EVENT, room, root)["unsigned"]["m.relations"]["m.thread"]
    assert (mine["count"], mine["latest_event"]["event_id"]) == (2, last)
    assert mine["current_user_participated"] is True
    bob.sync()
    alice.send(room, "unrelated")
    assert bob.get(EVENT, room, root)["unsigned"]["m.relations"]["m.thread"]["current_user_participated"] is True


def test_bundles_come_with_sync_messages_and_context(alice, bob, room):
    root = alice.send(room, "root")
    reply_in_thread(bob, room, root, "one")

    def count(events):
        return [e for e in events if e["event_id"] == root][0]["unsigned"]["m.relations"]["m.thread"]["count"]

    assert count(joined(alice.sync(), room)["timeline"]["events"]) == 1
    assert count(alice.messages(room)["chunk"]) == 1
    assert count([alice.get("rooms/{roomId}/context/{eventId}", room, root)["event"]]) == 1


def test_threads_latest_first(alice, bob, room):
    first, second = alice.send(room, "first"), alice.send(room, "second")
    reply_in_thread(alice, room, second, "reply")
    reply_in_thread(bob, room, first, "later reply")
    assert ids(alice.get(THREADS, room)) == [first, second]


def test_threads_of_mine(alice, bob, room):
    mine, theirs = bob.send(room, "bob's"), alice.send(room, "alice's")
    reply_in_thread(bob, room, mine, "reply")
    reply_in_thread(alice, room, theirs, "reply")
    assert ids(bob.get(THREADS, room, query={"include": "participated"})) == [mine]
    assert ids(bob.get(THREADS, room, query={"include": "all"})) == [theirs, mine]


def test_threads_in_pages(alice, room):
    roots = [alice.send(room, str(number)) for number in range(5)]
    for root in roots:
        reply_in_thread(alice, room, root, "reply")
    seen, page = [], alice.get(THREADS, room, query={"limit": 2})
    while True:
        seen += ids(page)
        if "next_batch" not in page:
            break
        page = alice.get(THREADS, room, query={"limit": 2, "from": page["next_batch"]})
    assert seen == roots[::-1]


def test_threads_are_for_members(carol, room):
    carol.get(THREADS, room, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse takes threads on threads")
def test_a_thread_on_a_thread_is_refused(alice, room):
    root = alice.send(room, "root")
    reply = reply_in_thread(alice, room, root, "reply")
    relation = {"rel_type": "m.thread", "event_id": reply}
    content = {"msgtype": "m.text", "body": "x", "m.relates_to": relation}
    alice.send(room, content, status=400, errcode="M_UNKNOWN")


@pytest.mark.parametrize("relation", ["m.thread", "m.replace", "m.annotation"])
def test_a_relation_to_another_room_is_refused(alice, room, relation):
    root = alice.send(alice.create_room(), "root elsewhere")
    content = {"msgtype": "m.text", "body": "astray", "m.relates_to": {"rel_type": relation, "event_id": root}}
    alice.send(room, content, status=400)


def test_relations_of_one_type_are_for_members(alice, carol, room):
    root = alice.send(room, "root")
    carol.get(ALL + "/{relType}/{eventType}", room, root, "m.thread", "m.room.message", status=(403, 404))
