"""A room is resynchronised: what another server knows of it and this one does not is fetched and, where allowed, adopted."""

import subprocess

import pytest

from harness.client import address, bodies
from harness.events import id_of, redacted
from harness.rooms import via
from harness.server import binary
from harness.waiting import until

SECONDS_MAX = 60


@pytest.fixture
def base_url(warren):
    return warren.base_url


def common_room(alice, warren, resident):
    """A room that both have, as the other one has it: a test adds to that."""
    room_id = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(warren, room_id)
    alice.send(room_id, "the last that both know")
    return resident.catch_up(warren, copy)


def add_join(resident, warren, copy, word, **more):
    """A join that has come to the other server alone, which holds it to be in the state before the last event."""
    join = {**resident.make_join(warren, copy.room_id, resident.user(word)), **more}
    resident.know(join)
    resident.before[copy.ends[0]]["m.room.member", join["sender"]] = id_of(join)
    return join


def resynchronise(admin, room_id, *servers):
    """Has it done, and answers the report."""
    path = address("/_warren/admin/v1/rooms/{roomId}/resynchronise", room_id)
    response = admin.send_raw("POST", path, json={"servers": list(servers)})
    assert response.status_code == 200, response.text

    def report():
        told = admin.send_raw("GET", path).json()
        return told if told["status"] != "active" else None

    return until(report)


def test_what_another_server_knows_is_adopted_and_told(warren, alice, admin, resident):
    copy = common_room(alice, warren, resident)
    room_id = copy.room_id
    # Carl has joined there, and what he said came to nobody here.
    join = add_join(resident, warren, copy, "carl")
    carl, join_id = join["sender"], id_of(join)
    forged_id = id_of(add_join(resident, warren, copy, "dora", signatures=join["signatures"]))
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
    resident.transact(warren, [resident.message(resident.catch_up(warren, copy), "here I am", sender=carl)])
    alice.sync_until(lambda _: "here I am" in bodies(alice.messages(room_id)["chunk"]))
    assert resynchronise(admin, room_id, resident.name)["changed"] == 0


def test_a_server_that_is_found_in_the_room_is_told_what_was_said_before(warren, alice, admin, resident, other):
    """Its join never came here, so that it was sent nothing; it fetches what is before that."""
    copy = common_room(alice, warren, resident)
    room_id, member = copy.room_id, other.user()
    join = other.event(copy, "m.room.member", {"membership": "join"}, sender=member, state_key=member)
    alice.send(room_id, "said meanwhile")
    resident.until(lambda: "said meanwhile" in resident.bodies)
    last = resident.pdus[-1]
    resident.take(copy, last)
    resident.before[id_of(last)]["m.room.member", member] = id_of(join)
    resynchronise(admin, room_id, resident.name)
    assert member in alice.get("rooms/{roomId}/joined_members", room_id)["joined"]
    other.until(lambda: "said meanwhile" in other.bodies)


def test_the_last_events_there_are_taken_in(warren, alice, admin, resident):
    copy = common_room(alice, warren, resident)
    resident.place(copy, resident.message(copy, "missed"))
    (of_server,) = resynchronise(admin, copy.room_id)["servers"]
    assert (of_server["events_accepted"], of_server["refused"], of_server["differing"]) == (1, 0, 0)
    assert "missed" in bodies(alice.messages(copy.room_id)["chunk"])


def test_what_is_here_without_its_content_is_whole_again(warren, alice, admin, resident):
    copy = resident.create()
    resident.next(copy, "m.room.name", {"name": "The name"}, state_key="")
    answer = resident.answer_send_join

    def pruned(*asked):
        status, told = answer(*asked)
        return status, {**told, "state": [redacted(event) for event in told["state"]]}

    resident.answer_send_join = pruned
    # What servers give of single events they may prune again.
    resident.answer_event = lambda values, *_: resident.enveloped([redacted(resident.events[values[0]])])
    alice.join(copy.room_id, query=via(resident))
    assert alice.state(copy.room_id, "m.room.name") == {}
    (of_server,) = resynchronise(admin, copy.room_id)["servers"]
    assert (of_server["status"], of_server["state_events_made_whole"]) == ("complete", 1), of_server
    assert alice.state(copy.room_id, "m.room.name") == {"name": "The name"}
    # There is nothing to ask for a second time.
    whole = lambda: [request.target for request in resident.requests if "/v1/state/" in request.target]
    before = len(whole())
    (of_server,) = resynchronise(admin, copy.room_id)["servers"]
    assert (of_server["state_events_made_whole"], len(whole())) == (0, before)


def test_the_command_tells_what_the_server_did(warren, alice, admin, resident):
    copy = common_room(alice, warren, resident)
    join = add_join(resident, warren, copy, "carl")
    added = f"added\tm.room.member\t{join['sender']}\t-\t{id_of(join)}\n"

    def run(token):
        command = [binary(), "room", "resync", copy.room_id, "--from", resident.name, "--from", "nobody.test"]
        command += ["--token-file", "-", *warren.options]
        return subprocess.run(command, input=token, capture_output=True, text=True, timeout=SECONDS_MAX)

    done = run(admin.token)
    assert done.returncode == 0, done.stderr
    assert added in done.stdout
    assert done.stdout.endswith("1 entries of the state changed\n")
    assert "nobody.test\tThe other server is of no help" in done.stdout
    refused = run(alice.token)
    assert refused.returncode == 1 and "administrators" in refused.stderr


def test_it_is_for_administrators_and_rooms_that_are_shared(warren, alice, admin):
    room_id = alice.create_room()
    path = address("/_warren/admin/v1/rooms/{roomId}/resynchronise", room_id)
    other = address("/_warren/admin/v1/rooms/{roomId}/resynchronise", '!nowhere:here.test')
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
