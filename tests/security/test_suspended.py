"""What a suspended user may not do, and what they still may (specification: client-server API, "Account suspension").

The class of fault: a way to speak, to come in or to be seen that forgets to ask whether the account is suspended; and a
suspended user who cannot even leave, or take back what they said.
"""

import pytest

from harness.client import Client, bodies, timeline, unique
from harness.server import Server

SUSPEND = "/_matrix/client/v1/admin/suspend/{userId}"
UPLOAD = "/_matrix/media/v3/upload"
SUSPENDED = {"status": 403, "errcode": "M_USER_SUSPENDED"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("suspended") / "data")
    server.admin_password = server.make_administrator("warden")
    with server:
        yield server


@pytest.fixture(scope="module")
def warden(server):
    return Client(server.base_url, f"@warden:{server.name}").login(server.admin_password)


class Burrow:
    """A rabbit with a room of its own, a friend in it, and what others offer it."""

    def __init__(self, warden, base_url):
        self.warden = warden
        self.rabbit = Client(base_url).register("rabbit")
        self.friend = Client(base_url).register("friend")
        self.stranger = Client(base_url).register("stranger")
        self.room = self.rabbit.create_room(preset="public_chat")
        self.friend.join(self.room)
        self.alias = unique("meadow")
        self.open_room = self.friend.create_room(preset="public_chat", room_alias_name=self.alias)
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        self.locked_room = self.friend.create_room(initial_state=[rules])
        self.invited_to = self.friend.create_room(invite=[self.rabbit.user_id])
        self.said = self.rabbit.send(self.room, "mine")
        self.heard = self.friend.send(self.room, "not mine")
        self.media = self.rabbit.post("/_matrix/media/v1/create")["content_uri"].removeprefix("mxc://").split("/")

    def suspend(self, suspended=True):
        self.warden.put(SUSPEND, self.rabbit.user_id, json={"suspended": suspended})


@pytest.fixture
def burrow(warden, server):
    return Burrow(warden, server.base_url)


def set_profile(burrow, name, value, **more):
    return burrow.rabbit.put("profile/{userId}/{keyName}", burrow.rabbit.user_id, name, json={name: value}, **more)


def redact(burrow, event_id, **more):
    path = "rooms/{roomId}/redact/{eventId}/{txnId}"
    return burrow.rabbit.put(path, burrow.room, event_id, unique("txn"), **more)


def about(burrow, what, user, **more):
    """Kicks, bans and the like in the rabbit's own room."""
    return burrow.rabbit.post("rooms/{roomId}/" + what, burrow.room, json={"user_id": user.user_id}, **more)


def set_member(burrow, user, content, **more):
    return burrow.rabbit.set_state(burrow.room, "m.room.member", content, user.user_id, **more)


# What it is → the request, with what it is to be answered with.
FORBIDDEN = {
    "join by id": lambda b, **more: b.rabbit.post("rooms/{roomId}/join", b.open_room, **more),
    "join by alias": lambda b, **more: b.rabbit.join(f"#{b.alias}:{b.rabbit.server_name}", **more),
    "accept an invite": lambda b, **more: b.rabbit.join(b.invited_to, **more),
    "knock": lambda b, **more: b.rabbit.post("knock/{roomIdOrAlias}", b.locked_room, **more),
    "invite": lambda b, **more: b.rabbit.invite(b.room, b.stranger, **more),
    "invite by state": lambda b, **more: set_member(b, b.stranger, {"membership": "invite"}, **more),
    "create a room": lambda b, **more: b.rabbit.post("createRoom", **more),
    "upgrade a room": lambda b, **more: b.rabbit.post(
        "rooms/{roomId}/upgrade", b.room, json={"new_version": "12"}, **more
    ),
    "send": lambda b, **more: b.rabbit.send(b.room, "hello", **more),
    "react": lambda b, **more: b.rabbit.send(
        b.room,
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": b.heard, "key": "!"}},
        type="m.reaction",
        **more,
    ),
    "redact another's by sending": lambda b, **more: b.rabbit.send(
        b.room, {"redacts": b.heard}, type="m.room.redaction", **more
    ),
    "redact another's": lambda b, **more: redact(b, b.heard, **more),
    "set state": lambda b, **more: b.rabbit.set_state(b.room, "m.room.topic", {"topic": "carrots"}, **more),
    "a name in one room": lambda b, **more: set_member(
        b, b.rabbit, {"membership": "join", "displayname": "Rabbit"}, **more
    ),
    "kick": lambda b, **more: about(b, "kick", b.friend, **more),
    "ban": lambda b, **more: about(b, "ban", b.friend, **more),
    "a display name": lambda b, **more: set_profile(b, "displayname", "Rabbit", **more),
    "an avatar": lambda b, **more: set_profile(b, "avatar_url", "mxc://burrow.example/a", **more),
    "another field": lambda b, **more: set_profile(b, "org.example.colour", "brown", **more),
    "take a name away": lambda b, **more: b.rabbit.delete(
        "profile/{userId}/{keyName}", b.rabbit.user_id, "displayname", **more
    ),
    "upload": lambda b, **more: b.rabbit.post(UPLOAD, data=b"a picture", **more),
    "make an address for an upload": lambda b, **more: b.rabbit.post("/_matrix/media/v1/create", **more),
    "upload to an address": lambda b, **more: b.rabbit.put(
        "/_matrix/media/v3/upload/{serverName}/{mediaId}", *b.media, data=b"a picture", **more
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_is_forbidden_while_suspended_and_only_then(burrow, what):
    burrow.suspend()
    FORBIDDEN[what](burrow, **SUSPENDED)
    burrow.suspend(False)
    FORBIDDEN[what](burrow)


def test_who_is_banned_stays_so(burrow):
    about(burrow, "ban", burrow.friend)
    burrow.suspend()
    about(burrow, "unban", burrow.friend, **SUSPENDED)
    burrow.suspend(False)
    about(burrow, "unban", burrow.friend)


def test_an_event_that_nobody_knows_is_not_their_own(burrow):
    burrow.suspend()
    redact(burrow, "$nobody-has-sent-this", **SUSPENDED)


def test_what_they_said_can_be_taken_back(burrow):
    burrow.suspend()
    redaction = redact(burrow, burrow.said)["event_id"]
    event = burrow.friend.get("rooms/{roomId}/event/{eventId}", burrow.room, burrow.said)
    assert event["content"] == {} and event["unsigned"]["redacted_because"]["event_id"] == redaction
    # What is redacted is their own still.
    redact(burrow, burrow.said)


def test_rooms_can_be_left_and_invites_declined(burrow):
    burrow.suspend()
    for room in (burrow.room, burrow.invited_to):
        burrow.rabbit.leave(room)
    assert burrow.rabbit.get("joined_rooms")["joined_rooms"] == []
    assert burrow.invited_to not in burrow.rabbit.sync().get("rooms", {}).get("invite", {})


def test_messages_are_seen(burrow):
    burrow.rabbit.sync()
    burrow.suspend()
    burrow.friend.send(burrow.room, "news")
    burrow.rabbit.sync_until(lambda answer: "news" in bodies(timeline(answer, burrow.room)))
    assert "news" in bodies(burrow.rabbit.messages(burrow.room)["chunk"])


def test_another_session_is_suspended_too(burrow):
    burrow.suspend()
    other = burrow.rabbit.login()
    other.send(burrow.room, "hello", **SUSPENDED)
    other.put("sendToDevice/{eventType}/{txnId}", "m.key.verification.request", unique("txn"), json={"messages": {}})
    algorithm = "m.megolm_backup.v1.curve25519-aes-sha2"
    other.post("room_keys/version", json={"algorithm": algorithm, "auth_data": {"public_key": "abc", "signatures": {}}})


def test_devices_are_logged_out_and_the_account_is_closed(burrow):
    other = burrow.rabbit.login()
    burrow.suspend()
    burrow.rabbit.with_password("DELETE", "devices/{deviceId}", other.device_id)
    other.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    last = burrow.rabbit.login()
    burrow.rabbit.post("logout")
    burrow.rabbit.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    last.with_password("POST", "account/deactivate")
    last.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
