"""Every way to look into a room × everybody who may not: nothing of it comes out.

The classes of fault: a former member keeps receiving; a private room is disclosed by an endpoint that forgot to ask.
"""

import json

import pytest

from harness.deliveries import send_to_device

SECRET = "the carrots are under the oak"
LATER = "the carrots were moved"
INCLUDE_LEFT = json.dumps({"room": {"include_leave": True}})


class Looked:
    """A room with an event, its reply in a thread and its state; and all the ways to ask about them."""

    def __init__(self, owner, room, event, since):
        self.owner, self.room, self.event, self.since = owner, room, event, since

    def answers(self, client):
        """What each endpoint says to `client`: path → text."""
        room, event = self.room, self.event
        v1, v3 = "/_matrix/client/v1", "/_matrix/client/v3"
        messages = f"{v3}/rooms/{room}/messages?limit=100"
        paths = [
            f"{messages}&dir=b",
            f"{messages}&dir=f",
            f"{messages}&dir=b&from={self.since}",
            f"{messages}&dir=f&from={self.since}",
            f"{v3}/rooms/{room}/context/{event}?limit=100",
            f"{v3}/rooms/{room}/event/{event}",
            f"{v3}/rooms/{room}/state",
            f"{v3}/rooms/{room}/state/m.room.topic",
            f"{v3}/rooms/{room}/state/m.room.topic/",
            f"{v3}/rooms/{room}/members",
            f"{v3}/rooms/{room}/joined_members",
            f"{v3}/rooms/{room}/aliases",
            f"{v3}/rooms/{room}/initialSync",
            f"{v1}/rooms/{room}/relations/{event}",
            f"{v1}/rooms/{room}/relations/{event}/m.thread",
            f"{v1}/rooms/{room}/threads",
            f"{v1}/rooms/{room}/threads?include=participated",
            f"{v1}/rooms/{room}/timestamp_to_event?ts=0&dir=f",
            f"{v1}/rooms/{room}/timestamp_to_event?ts=4102444800000&dir=b",
            f"{v1}/rooms/{room}/hierarchy",
            f"{v1}/room_summary/{room}",
            f"{v3}/notifications",
            f"{v3}/events?room_id={room}&timeout=0",
            f"{v3}/sync?timeout=0",
            f"{v3}/sync?timeout=0&full_state=true",
            f"{v3}/sync?timeout=0&filter={INCLUDE_LEFT}",
            f"{v3}/sync?timeout=0&since={self.since}",
            f"{v3}/sync?timeout=0&since={self.since}&filter={INCLUDE_LEFT}",
            f"{v3}/sync?timeout=0&since={self.since}&use_state_after=true&full_state=true",
        ]
        said = {path: client.send_raw("GET", path.replace("#", "%23")).text for path in paths}
        search = {"search_categories": {"room_events": {"search_term": "carrots"}}}
        said["search"] = client.send_raw("POST", f"{v3}/search", json=search).text
        return said


def look(owner, room, text):
    """Puts a message, a thread, a topic and a member that all say `text` into the room."""
    since = owner.sync()["next_batch"]
    event = owner.send(room, text)
    relation = {"rel_type": "m.thread", "event_id": event}
    owner.send(room, {"msgtype": "m.text", "body": text, "m.relates_to": relation})
    owner.set_state(room, "m.room.topic", {"topic": text})
    return Looked(owner, room, event, since)


def disclosed(looked, client, text):
    return [path for path, said in looked.answers(client).items() if text in said or looked.event in said.replace(path, "")]


def test_the_owner_sees_it_all(alice, room):
    """The probe itself: who may look finds the text by most of these ways."""
    looked = look(alice, room, SECRET)
    assert len(disclosed(looked, alice, SECRET)) >= 15


@pytest.mark.parametrize("visibility", ["invited", "joined", "shared"])
@pytest.mark.parametrize("how", ["leave", "kick", "ban"])
def test_who_is_gone_sees_nothing_that_follows(alice, bob, room, visibility, how):
    alice.set_state(room, "m.room.history_visibility", {"history_visibility": visibility})
    bob.sync()
    if how == "leave":
        bob.leave(room)
    else:
        alice.post("rooms/{roomId}/" + how, room, json={"user_id": bob.user_id})
    looked = look(alice, room, LATER)
    assert disclosed(looked, bob, LATER) == []
    bob.send(room, "still here", status=403, errcode="M_FORBIDDEN")


@pytest.mark.parametrize("how", ["stranger", "invited", "banned", "knocking"])
@pytest.mark.parametrize("visibility", ["joined", "shared"])
def test_who_never_was_there_sees_nothing(alice, carol, visibility, how):
    rule = "knock" if how == "knocking" else "invite"
    state = [
        {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}},
        {"type": "m.room.join_rules", "content": {"join_rule": rule}},
    ]
    room = alice.create_room(preset="private_chat", initial_state=state)
    if how == "invited":
        alice.invite(room, carol)
    elif how == "banned":
        alice.post("rooms/{roomId}/ban", room, json={"user_id": carol.user_id})
    elif how == "knocking":
        carol.post("knock/{roomIdOrAlias}", room)
    looked = look(alice, room, SECRET)
    found = disclosed(looked, carol, SECRET)
    # What a room shows of itself to the invited and to who may knock: its topic is part of that.
    shown = ("hierarchy", "room_summary", "sync") if how in ("invited", "knocking") else ()
    assert [path for path in found if not any(part in path for part in shown)] == []
    carol.send(room, "let me in", status=403, errcode="M_FORBIDDEN")


def test_what_was_before_joining_is_as_the_room_says(alice, carol):
    """Who joins sees nothing from before where the history is for those who were there."""
    state = [{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]
    room = alice.create_room(preset="public_chat", initial_state=state)
    looked = look(alice, room, SECRET)
    alice.set_state(room, "m.room.topic", {"topic": "nothing"})
    carol.join(room)
    assert disclosed(looked, carol, SECRET) == []


def test_whoever_leaves_is_not_told_of_by_what_others_do(alice, bob, room):
    """Receipts, typing, presence, devices and profiles of a room one has left are nobody's news."""
    bob.leave(room)
    bob.sync()
    event = alice.send(room, LATER)
    alice.post("rooms/{roomId}/receipt/{receiptType}/{eventId}", room, "m.read", event)
    alice.put("rooms/{roomId}/typing/{userId}", room, alice.user_id, json={"typing": True, "timeout": 30000})
    alice.put("presence/{userId}/status", alice.user_id, json={"presence": "online", "status_msg": LATER})
    alice.put("profile/{userId}/displayname", alice.user_id, json={"displayname": LATER})
    alice.login()
    # When this comes, all the rest would have come.
    send_to_device(alice, {bob.user_id: {"*": {"body": "is that all?"}}})
    answers = []

    def is_all(answer):
        answers.append(answer)
        return answer.get("to_device", {}).get("events")

    bob.sync_until(is_all)
    for answer in answers:
        answer.pop("to_device", None)
    said = json.dumps(answers)
    assert room not in said and LATER not in said and alice.user_id not in said


def test_ignored_users_are_not_heard(alice, bob, room):
    path = "user/{userId}/account_data/{type}"
    bob.put(path, bob.user_id, "m.ignored_user_list", json={"ignored_users": {alice.user_id: {}}})
    since = bob.sync()["next_batch"]
    alice.send(room, SECRET)
    assert SECRET not in json.dumps(bob.sync()) and SECRET not in json.dumps(bob.messages(room))
    assert SECRET not in bob.send_raw("GET", f"/_matrix/client/v3/sync?since={since}").text
