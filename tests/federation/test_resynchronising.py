"""A room is resynchronised: what another server knows of it and this one does not is fetched and, where allowed, adopted."""

import subprocess
import threading

import pytest

from harness.client import address, bodies, joined
from harness.events import id_of, redacted
from harness.participant import UNKNOWN, Participant
from harness.rooms import via
from harness.server import binary
from harness.waiting import until

SECONDS_MAX = 60


def common_room(alice, warren, resident, **more):
    """A room that both have, as the other one has it: a test adds to that."""
    room_id = alice.create_room(preset="public_chat", room_version="11", **more)
    copy = resident.join(warren, room_id)
    alice.send(room_id, "the last that both know")
    return resident.catch_up(warren, copy)


def add_join(resident, warren, copy, word, **more):
    """A join that has come to the other server alone, which holds it to be in the state before the last event."""
    join = {**resident.make_join(warren, copy.room_id, resident.user(word)), **more}
    resident.know(join)
    resident.before[copy.ends[-1]]["m.room.member", join["sender"]] = id_of(join)
    return join


def fork(resident, copy):
    """Lets the room have two ends there, of which nothing came here."""
    ends = [resident.message(copy, word) for word in ("one", "two")]
    copy.ends, copy.depth = [id_of(end) for end in ends], copy.depth + 1
    return copy.ends


def begin(admin, room_id, *servers):
    """Has it begun, and answers the report."""
    path = address("/_warren/admin/v1/rooms/{roomId}/resynchronise", room_id)
    response = admin.send_raw("POST", path, json={"servers": list(servers)})
    assert response.status_code == 200, response.text
    return response.json()


def report_of(admin, room_id):
    return admin.send_raw("GET", address("/_warren/admin/v1/rooms/{roomId}/resynchronise", room_id)).json()


def completed(admin, room_id):
    """The report, as soon as it is complete."""
    return until(lambda: (told := report_of(admin, room_id))["status"] == "complete" and told)


def resynchronise(admin, room_id, *servers):
    """Has it done, and answers the report."""
    begin(admin, room_id, *servers)
    return completed(admin, room_id)


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


def test_what_the_last_events_change_is_told(warren, alice, admin, resident):
    powers = {"users": {alice.user_id: 100, resident.user(): 100}}
    copy = common_room(alice, warren, resident, power_level_content_override=powers)
    before = alice.set_state(copy.room_id, "m.room.topic", {"topic": "old"})
    resident.catch_up(warren, copy)
    banned = resident.user("banned")
    topic = resident.next(copy, "m.room.topic", {"topic": "new"}, state_key="")
    ban = resident.next(copy, "m.room.member", {"membership": "ban"}, state_key=banned)
    resident.place(copy, resident.message(copy, "missed"))
    report = resynchronise(admin, copy.room_id)
    (of_server,) = report["servers"]
    assert (of_server["events_accepted"], report["changed"]) == (3, 2), report
    changes = sorted(report["changes"], key=lambda change: change["type"])
    told = [(change["state_key"], change["change"], change["before"], change["after"]) for change in changes]
    assert told == [(banned, "added", None, id_of(ban)), ("", "changed", before, id_of(topic))]
    assert {change["server"] for change in changes} == {resident.name}
    assert alice.state(copy.room_id, "m.room.topic") == {"topic": "new"}


def test_what_was_adopted_is_told_after_a_restart_too(warren, alice, admin, resident):
    copy = common_room(alice, warren, resident)
    room_id = copy.room_id
    alice.sync()
    carl = add_join(resident, warren, copy, "carl")["sender"]
    assert resynchronise(admin, room_id)["changed"] == 1
    warren.restart()
    answer = alice.sync()
    told = joined(answer, room_id)["state"]["events"]
    assert [(event["type"], event["state_key"]) for event in told] == [("m.room.member", carl)]
    assert answer["device_lists"]["changed"] == [carl]


def test_who_is_not_known_there_is_not_the_only_one_who_asks(warren, alice, bob, admin, resident):
    """Of two users that are in the room here, the other server knows the one with the younger account."""
    room_id = alice.create_room(preset="public_chat", room_version="11")
    bob.join(room_id)
    copy = resident.catch_up(warren, resident.join(warren, room_id))
    known, asked = {bob.user_id}, []

    def answer_make_leave(values, *question):
        asked.append(values[1])
        if values[1] in known:
            return Participant.answer_make_leave(resident, values, *question)
        return 403, {"errcode": "M_FORBIDDEN", "error": "They are not in the room."}

    resident.answer_make_leave = answer_make_leave
    add_join(resident, warren, copy, "carl")
    report = resynchronise(admin, room_id)
    assert (report["servers"][0]["status"], report["changed"]) == ("complete", 1), report
    assert asked == [alice.user_id, bob.user_id]
    known.clear()
    (of_server,) = resynchronise(admin, room_id)["servers"]
    assert (of_server["status"], of_server["error"]) == ("failed", "They are not in the room.")


@pytest.fixture
def may_answer():
    """What a slow server waits for."""
    event = threading.Event()
    yield event
    event.set()


def test_servers_that_are_asked_for_meanwhile_are_asked_too(warren, alice, admin, resident, other, may_answer):
    copy = common_room(alice, warren, resident)
    other.copies = resident.copies

    def answer_make_leave(*question):
        may_answer.wait(SECONDS_MAX)
        return Participant.answer_make_leave(resident, *question)

    resident.answer_make_leave = answer_make_leave
    begin(admin, copy.room_id, resident.name)
    report = begin(admin, copy.room_id, other.name, resident.name)
    assert [of_server["server"] for of_server in report["servers"]] == [resident.name, other.name]
    assert begin(admin, copy.room_id)["servers"][1]["status"] == "waiting", "who names nobody adds nobody"
    may_answer.set()
    done = [(of["server"], of["status"]) for of in completed(admin, copy.room_id)["servers"]]
    assert done == [(resident.name, "complete"), (other.name, "complete")]
    assert other.versions_asked("make_leave") == ["v1"]


def test_what_a_slow_server_has_told_is_told_at_once(warren, alice, admin, resident, may_answer):
    copy = common_room(alice, warren, resident)
    first, slow = fork(resident, copy)
    join = add_join(resident, warren, copy, "carl")
    resident.before[first] = resident.before[slow]

    def answer_state_ids(values, query, body):
        if query["event_id"] == slow:
            may_answer.wait(SECONDS_MAX)
        return Participant.answer_state_ids(resident, values, query, body)

    resident.answer_state_ids = answer_state_ids
    begin(admin, copy.room_id)
    report = until(lambda: (told := report_of(admin, copy.room_id))["changed"] and told)
    (of_server,) = report["servers"]
    assert (report["status"], of_server["status"]) == ("active", "active")
    assert (of_server["last_events"], of_server["events_accepted"], of_server["differing"]) == (2, 2, 1)
    assert [change["after"] for change in report["changes"]] == [id_of(join)]
    may_answer.set()
    assert completed(admin, copy.room_id)["changed"] == 1


def test_an_end_whose_state_is_not_told_holds_back_no_other(warren, alice, admin, resident):
    copy = common_room(alice, warren, resident)
    unknown, known = fork(resident, copy)
    add_join(resident, warren, copy, "carl")
    untold = {unknown}

    def answer_state_ids(values, query, body):
        if query["event_id"] in untold:
            return UNKNOWN
        return Participant.answer_state_ids(resident, values, query, body)

    resident.answer_state_ids = answer_state_ids
    report = resynchronise(admin, copy.room_id)
    (of_server,) = report["servers"]
    assert (of_server["status"], report["changed"]) == ("complete", 1), report
    assert [refusal["event_id"] for refusal in of_server["refusals"]] == [unknown]
    untold.add(known)
    (of_server,) = resynchronise(admin, copy.room_id)["servers"]
    assert (of_server["status"], of_server["refused"]) == ("failed", 2), of_server


def test_a_last_event_that_waits_is_told_with_what_it_lacks(warren, alice, admin, resident, away):
    copy = common_room(alice, warren, resident)
    end = away.come(copy, away.user())
    (of_server,) = resynchronise(admin, copy.room_id, resident.name)["servers"]
    assert (of_server["status"], of_server["events_accepted"], of_server["refused"]) == ("complete", 0, 0), of_server
    (waiting,) = of_server["waiting"]
    assert waiting["event_id"] == id_of(end) and away.name in waiting["lacks"], waiting


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

    def run(token, *servers):
        command = [binary(), "room", "resync", copy.room_id, "--token-file", "-", *warren.options]
        command += [word for server in servers for word in ("--from", server)]
        return subprocess.run(command, input=token, capture_output=True, text=True, timeout=SECONDS_MAX)

    done = run(admin.token, resident.name, "nobody.test")
    assert done.returncode == 0, done.stderr
    assert added in done.stdout
    assert done.stdout.endswith("1 entries of the state changed\n")
    assert "nobody.test\tThe other server is of no help" in done.stdout
    # Where none is of help, nothing was compared.
    failed = run(admin.token, "nobody.test")
    assert failed.returncode == 1 and "none of the servers" in failed.stderr
    assert "nobody.test\tThe other server is of no help" in failed.stdout
    refused = run(alice.token, resident.name)
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
