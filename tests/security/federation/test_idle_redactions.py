"""Nobody makes messages of others disappear who may not redact them.

The class of fault: clients empty whatever a redaction names that they are given, and look neither at who sent it nor at powers. From
version 3 of rooms on, anybody in a room may send one; what it does is for each server to judge.
"""

import pytest

from harness.client import address, timeline, unique
from harness.events import KEPT, Copy, id_of
from harness.participant import path
from harness.rooms import everything, see, state

VERSIONS = ["3", "10", "11", "12"]


class Intruder:
    """A hostile server with a user in a room of Alice's."""

    def __init__(self, server, peer, alice, version):
        self.server, self.peer, self.alice, self.version = server, peer, alice, version
        self.room, self.user = alice.create_room(preset="public_chat", room_version=version), peer.user()
        made = peer.ask(server, "GET", path("v1/make_join/{}/{}?ver=" + version, self.room, self.user))["event"]
        made = {name: made[name] for name in KEPT if name in made}
        join = peer.sign({**made, "content": {"membership": "join"}, **(self.named() if version == "1" else {})})
        peer.ask(server, "PUT", path("v2/send_join/{}/{}", self.room, self.id_of(join)), join)
        self.copy = Copy(self.room, {}, [], join["depth"], self.user)
        self.follow(self.id_of(join))

    def named(self, server=None):
        """What an event has besides in version 1, where its id is of who made it."""
        return {"event_id": f"${unique('event')}:{(server or self.peer).name}", "origin": self.peer.name}

    def event(self, type, content, **more):
        if self.version == "1":
            following = {"prev_events": self.copy.ends, "auth_events": self.copy.allowing(type, self.user)}
            following = {name: [[event_id, {}] for event_id in ids] for name, ids in following.items()}
            more = {**following, **self.named(), **more}
        return self.peer.event(self.copy, type, content, **more)

    def id_of(self, event):
        """Version 3 writes ids with letters that are escaped in addresses."""
        if self.version == "1":
            return event["event_id"]
        event_id = id_of(event)
        return event_id.replace("-", "+").replace("_", "/") if self.version == "3" else event_id

    def follow(self, event_id):
        """Lets what is made next follow an event, with the state of now."""
        self.copy.state = {(event["type"], event["state_key"]): event["event_id"] for event in state(self.alice, self.room)}
        self.copy.ends, self.copy.depth = [event_id], self.copy.depth + 1

    def entrust(self, level):
        power = self.alice.state(self.room, "m.room.power_levels")
        power["users"][self.user] = level
        self.follow(self.alice.set_state(self.room, "m.room.power_levels", power))

    def redaction(self, target, **more):
        if int(self.version) < 11:
            return self.event("m.room.redaction", {}, redacts=target, **more)
        return self.event("m.room.redaction", {"redacts": target}, **more)

    def tell(self, event):
        """Sends an event, which the server takes for one of the room. Answers with its id."""
        event_id = self.id_of(event)
        assert self.peer.transact(self.server, [event]) == {event_id: {}}
        assert self.peer.send(self.server, "GET", path("v1/event/{}", event_id))[0] == 200
        return event_id

    def shown(self, event_id):
        """Whether Alice is given an event, wherever she looks for it; she has not synced since before it came."""
        last, synced = self.alice.send(self.room, "the last"), []

        def ids(events):
            return [event["event_id"] for event in events]

        def is_all(answer):
            synced.extend(ids(timeline(answer, self.room)))
            return last in synced

        self.alice.sync_until(is_all)
        around = self.alice.get("rooms/{roomId}/context/{eventId}", self.room, last, query={"limit": 100})
        alone = self.alice.send_raw("GET", address("rooms/{roomId}/event/{eventId}", self.room, event_id))
        found = [event_id in synced, event_id in ids(everything(self.alice, self.room))]
        found += [event_id in ids(around["events_before"]), alone.status_code == 200]
        assert found in ([True] * 4, [False] * 4), found
        return found[0]

    def content(self, event_id):
        return self.alice.get("rooms/{roomId}/event/{eventId}", self.room, event_id)["content"]


@pytest.fixture
def intruder(server, hostile, alice, version):
    return Intruder(server, hostile, alice, version)


@pytest.fixture
def said(intruder, alice):
    """A message of Alice's."""
    said = alice.send(intruder.room, "hello")
    intruder.follow(said)
    alice.sync()
    return said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redaction_by_who_has_not_the_power_is_given_to_no_client(intruder, said):
    redaction = intruder.tell(intruder.redaction(said))
    assert not intruder.shown(redaction)
    assert intruder.content(said)["body"] == "hello"


@pytest.mark.parametrize("version", ["1", *VERSIONS])
def test_a_moderators_is(intruder, alice):
    said = alice.send(intruder.room, "hello")
    intruder.entrust(50)
    alice.sync()
    redaction = intruder.tell(intruder.redaction(said))
    assert intruder.shown(redaction)
    assert intruder.content(said) == {}


@pytest.mark.parametrize("version", ["1"])
def test_in_the_first_version_it_is_refused_unless_both_ids_name_one_server(intruder, said):
    """Whoever made an event may redact it there, and events are of who signs for the server that their ids name."""
    forged = intruder.named(intruder.server)["event_id"]
    for redaction in (intruder.redaction(said), intruder.redaction(said, event_id=forged)):
        event_id = intruder.id_of(redaction)
        assert "error" in intruder.peer.transact(intruder.server, [redaction])[event_id]
        assert not intruder.shown(event_id)
    assert intruder.content(said)["body"] == "hello"
    own = intruder.tell(intruder.event("m.room.message", {"msgtype": "m.text", "body": "mine"}))
    intruder.follow(own)
    assert intruder.shown(intruder.tell(intruder.redaction(own)))
    assert intruder.content(own) == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_one_before_its_target_waits_for_it(intruder, said, alice):
    late = intruder.peer.message(intruder.copy, "never to be seen")
    redaction = intruder.tell(intruder.redaction(intruder.id_of(late)))
    assert not intruder.shown(redaction)
    intruder.tell(late)
    seen = see(alice, intruder.room, intruder.id_of(late))
    assert (seen["content"], seen["unsigned"]["redacted_because"]["event_id"]) == ({}, redaction)
    assert redaction in [event["event_id"] for event in everything(alice, intruder.room)]


@pytest.mark.parametrize("version", ["11", "12"])
def test_what_clients_read_is_what_the_server_has_judged(intruder, said, alice):
    """Since version 11 the target stands in the content, and clients are shown it at the top level as well."""
    own = intruder.tell(intruder.peer.message(intruder.copy, "mine"))
    intruder.follow(own)
    redaction = intruder.peer.event(intruder.copy, "m.room.redaction", {"redacts": own}, redacts=said)
    seen = see(alice, intruder.room, intruder.tell(redaction))
    assert (seen["redacts"], seen["content"]["redacts"]) == (own, own)
    assert intruder.content(said)["body"] == "hello"
