"""A room is resynchronised: what another server knows of it and this one does not is fetched and, where allowed, adopted."""

import subprocess

import pytest

from harness.client import Client, bodies
from harness.resident import escaped, id_of
from harness.server import binary

SECONDS_MAX = 60


@pytest.fixture
def alice(warren):
    return Client(warren.base_url).register("alice")


class Elsewhere:
    """What a peer holds a room of the server under test to be: all that is there, and what a test adds."""

    def __init__(self, peer, server, user_id, room_id):
        self.peer, self.server, self.user_id, self.room_id = peer, server, user_id, room_id
        self.events = {}
        template = peer.template(server, user_id, room_id)
        self.ends, self.depth = template["prev_events"], template["depth"]
        # The state before the last event, which is a message.
        (self.last,) = self.ends
        target = f"/_matrix/federation/v1/state_ids/{escaped(room_id)}?event_id={escaped(self.last)}"
        answer = peer.send(server, "GET", target)[1]
        self.state, self.chain = answer["pdu_ids"], answer["auth_chain_ids"]
        room = escaped(room_id)
        peer.answers[f"/_matrix/federation/v1/state_ids/{room}"] = lambda _: (
            200,
            {"pdu_ids": self.state, "auth_chain_ids": self.chain},
        )
        peer.answers = Paths(peer.answers, self)

    def add(self, event_id, event, is_state=False):
        self.events[event_id] = event
        if is_state:
            self.state = [*self.state, event_id]


class Paths(dict):
    """Paths that end with ids which are not known before."""

    def __init__(self, paths, elsewhere):
        super().__init__(paths)
        self.elsewhere = elsewhere

    def get(self, path, default):
        here = self.elsewhere
        if "/make_leave/" in path:
            event = {"prev_events": here.ends, "auth_events": [], "depth": here.depth}
            return lambda _: (200, {"event": event, "room_version": "11"})
        event = next((event for event_id, event in here.events.items() if path.endswith(escaped(event_id))), None)
        if event:
            return lambda _: (200, {"pdus": [event]})
        return super().get(path, default)


def resynchronise(admin, room_id, *servers):
    """Has it done, and answers the report."""
    path = f"/_warren/admin/v1/rooms/{escaped(room_id)}/resynchronise"
    response = admin.send_raw("POST", path, json={"servers": list(servers)})
    assert response.status_code == 200, response.text
    report = response.json()
    while report["status"] == "active":
        admin.sync(timeout=200)
        report = admin.send_raw("GET", path).json()
    return report


def test_what_another_server_knows_is_adopted_and_told(warren, alice, admin, resident):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    bob, carl = (f"@{name}:{resident.name}" for name in ("bob", "carl"))
    resident.join(warren, bob, room_id)
    alice.send(room_id, "the last that both know")
    there = Elsewhere(resident, warren, bob, room_id)
    # Carl has joined there, and what he said came to nobody here.
    join_id, join = resident.make_join(warren, carl, room_id)
    there.add(join_id, join, is_state=True)
    forged_id, forged = resident.make_join(warren, f"@dora:{resident.name}", room_id)
    forged["signatures"] = {resident.name: {resident.key.id: join["signatures"][resident.name][resident.key.id]}}
    there.add(forged_id, forged, is_state=True)
    report = resynchronise(admin, room_id)
    (of_server,) = report["servers"]
    assert (of_server["server"], of_server["status"]) == (resident.name, "complete"), report
    assert of_server["state_events_fetched"] == 2 and of_server["differing"] == 1
    assert [refusal["event_id"] for refusal in of_server["refusals"]] == [forged_id]
    (change,) = report["changes"]
    assert change == {
        "type": "m.room.member",
        "state_key": carl,
        "change": "added",
        "before": None,
        "after": join_id,
        "server": resident.name,
    }
    assert report["changed"] == 1
    assert carl in alice.get("rooms/{roomId}/joined_members", room_id)["joined"]
    # He may speak now, and a second time there is nothing to do.
    resident.transact(warren, resident.message(warren, carl, room_id, "here I am"))
    alice.sync_until(lambda _: "here I am" in bodies(alice.messages(room_id)["chunk"]))
    assert resynchronise(admin, room_id, resident.name)["changed"] == 0


def test_the_last_events_there_are_taken_in(warren, alice, admin, resident):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    bob = f"@bob:{resident.name}"
    resident.join(warren, bob, room_id)
    alice.send(room_id, "the last that both know")
    there = Elsewhere(resident, warren, bob, room_id)
    missed = resident.message(warren, bob, room_id, "missed")
    missed_id = id_of(missed)
    there.add(missed_id, missed)
    there.ends = [missed_id]
    (of_server,) = resynchronise(admin, room_id)["servers"]
    assert (of_server["events_accepted"], of_server["refused"], of_server["differing"]) == (1, 0, 0)
    assert "missed" in bodies(alice.messages(room_id)["chunk"])


def test_the_command_tells_what_the_server_did(warren, alice, admin, resident):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    bob, carl = (f"@{name}:{resident.name}" for name in ("bob", "carl"))
    resident.join(warren, bob, room_id)
    alice.send(room_id, "the last that both know")
    there = Elsewhere(resident, warren, bob, room_id)
    join_id, join = resident.make_join(warren, carl, room_id)
    there.add(join_id, join, is_state=True)

    def run(token):
        command = [binary(), "room", "resync", room_id, "--from", resident.name, "--from", "nobody.test"]
        command += ["--token-file", "-", *warren.options]
        return subprocess.run(command, input=token, capture_output=True, text=True, timeout=SECONDS_MAX)

    done = run(admin.token)
    assert done.returncode == 0, done.stderr
    assert f"added\tm.room.member\t{carl}\t-\t{join_id}\n" in done.stdout
    assert done.stdout.endswith("1 entries of the state changed\n")
    assert "nobody.test\tThe other server is of no help" in done.stdout
    refused = run(alice.token)
    assert refused.returncode == 1 and "administrators" in refused.stderr


def test_it_is_for_administrators_and_rooms_that_are_shared(warren, alice, admin):
    room_id = alice.create_room()
    path = f"/_warren/admin/v1/rooms/{escaped(room_id)}/resynchronise"
    other = f"/_warren/admin/v1/rooms/{escaped('!nowhere:here.test')}/resynchronise"
    for client, method, path, body, status in (
        (alice, "POST", path, {}, 403),
        (alice, "GET", path, None, 403),
        (admin, "GET", path, None, 404),
        (admin, "POST", path, {}, 400),
        (admin, "POST", path, {"servers": ["no name"]}, 400),
        (admin, "POST", path, {"servers": [f"s{n}.test" for n in range(11)]}, 400),
        (admin, "POST", path, {"servers": 5}, 400),
        (admin, "POST", other, {}, 404),
    ):
        response = client.send_raw(method, path, json=body)
        assert response.status_code == status, response.text
