"""What was said while this server was not in a room is history: clients are shown it behind their join when they page back,
and are not told of it as of something new, whatever leads to it and whoever tells it."""

import pytest

from harness.client import Client, address, bodies, joined, timeline
from harness.events import Copy, id_of
from harness.participant import Participant
from harness.rooms import everything, see, via
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

WIDE = '{"room":{"timeline":{"limit":1000}}}'


def place_message(resident, copy, body, **more):
    return resident.place(copy, resident.message(copy, body, **more))


def fork_of(copy):
    return Copy(copy.room_id, copy.state, copy.ends, copy.depth, copy.user)


def told_until(client, room, event):
    """The texts that a client is told from now on, up to and with an event, and how many are unread then."""
    told = []

    def has_come(answer):
        events = timeline(answer, room)
        told.extend(bodies(events))
        is_last = any(found["event_id"] == id_of(event) for found in events)
        return (joined(answer, room)["unread_notifications"]["notification_count"],) if is_last else None

    (unread,) = client.sync_until(has_come, filter=WIDE)
    return told, unread


@pytest.mark.parametrize("behind", [0, 3])
def test_a_fork_from_before_the_join_brings_nothing_old(server, alice, resident, behind):
    """Somebody goes on talking whose server has not heard of the join; `behind` older events are not in what the join follows."""
    copy = resident.create()
    old = [f"old {number}" for number in range(30)]
    for body in old[: 30 - behind]:
        place_message(resident, copy, body)
    fork = fork_of(copy)
    for body in old[30 - behind :]:
        place_message(resident, copy, body)
    alice.join(copy.room_id, query=via(resident))
    alice.sync()
    # Together they are deeper than the join.
    said = [place_message(resident, fork, f"new {number}") for number in range(6)]
    resident.transact(server, [said[-1]])
    told, unread = told_until(alice, copy.room_id, said[-1])
    assert [body for body in told if body.startswith("old")] == []
    assert told == [f"new {number}" for number in range(6)][-len(told) :]
    assert unread <= len(said)
    # Whoever pages back finds everything old below the join, and the room's creation at its beginning.
    events = everything(alice, copy.room_id)
    names = [event["content"].get("body", event["type"]) for event in events]
    assert names[0] == "m.room.create"
    join = next(at for at, event in enumerate(events) if event.get("state_key") == alice.user_id)
    assert sorted(body for body in names[:join] if body.startswith("old")) == sorted(old)


def test_what_was_said_in_absence_is_history(server, alice, resident):
    copy = resident.create()
    alice.join(copy.room_id, query=via(resident))
    alice.sync()
    alice.leave(copy.room_id)
    leaves = lambda: [event for event in resident.pdus if event["content"].get("membership") == "leave"]
    resident.until(leaves)
    resident.take(copy, leaves()[0])
    before = fork_of(copy)
    for number in range(10):
        place_message(resident, copy, f"away {number}")
    alice.join(copy.room_id, query=via(resident))
    alice.sync()
    for number in range(3):
        place_message(resident, before, f"on another branch {number}")
    last = place_message(resident, before, "after all")
    resident.transact(server, [last])
    assert told_until(alice, copy.room_id, last)[0] == ["after all"]


def test_what_was_missed_while_in_the_room_is_told_as_new(server, alice, resident):
    """In several rounds: more than one answer has."""
    copy = resident.create()
    for number in range(30):
        place_message(resident, copy, f"old {number}")
    alice.join(copy.room_id, query=via(resident))
    alice.sync()
    missed = [place_message(resident, copy, f"missed {number}") for number in range(55)]
    resident.transact(server, [missed[-1]])
    told, _ = told_until(alice, copy.room_id, missed[-1])
    assert told == [event["content"]["body"] for event in missed]
    assert len(resident.versions_asked("get_missing_events")) >= 3


def test_what_was_purged_does_not_come_back_as_new(network, tmp_path, resident):
    server = network.server(tmp_path)
    with sound(server):
        alice = Client(server.base_url).register("alice")
        room = alice.create_room(preset="public_chat", room_version="11")
        copy = resident.join(server, room)
        alice.sync()
        said = [place_message(resident, copy, f"old {number}") for number in range(20)]
        resident.transact(server, said)
        see(alice, room, id_of(said[-1]), filter=WIDE)
        fork = Copy(room, copy.state, [id_of(said[10])], said[10]["depth"], copy.user)
        server.stop()
        words = ["room", "purge-history", room, "--before", id_of(said[15])]
        purged = server.command(*words, "--data-dir", str(server.data_dir), "--server-name", server.name)
        assert purged.returncode == 0, purged.stderr
        server.start()
        alice.base_url = server.base_url
        straggler = place_message(resident, fork, "straggler")
        resident.transact(server, [straggler])
        assert told_until(alice, room, straggler)[0] == ["straggler"]


def test_a_server_that_lies_about_a_state_shuts_no_other_out(network, server, alice, resident):
    """It sends an event before the one that it follows, and tells a state without the sender."""
    liar = network.peer(kind=Participant)
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room)
    liar.join(server, room)
    resident.until(lambda: any(event["sender"] == liar.user() for event in resident.pdus))
    resident.catch_up(server, copy)
    alice.sync()
    first = place_message(resident, copy, "first")
    second = place_message(resident, copy, "second")
    liar.know(*resident.events.values())
    joins = [event for event in liar.events.values() if event["type"] == "m.room.create"]
    liar.answer_get_missing_events = lambda *_: (200, {"events": joins})
    state = resident.before[id_of(second)].items()
    liar.before[id_of(second)] = {key: event_id for key, event_id in state if key != ("m.room.member", copy.user)}
    liar.transact(server, [second])
    see(alice, room, id_of(second))
    assert any("/state_ids/" in target for target in liar.states_asked(second))
    assert any("/state_ids/" in target for target in resident.states_asked(second))
    resident.transact(server, [first, second])
    see(alice, room, id_of(first))
    last = place_message(resident, copy, "last")
    resident.transact(server, [last])
    see(alice, room, id_of(last))
    assert sorted(bodies(room_messages(alice, room))) == ["first", "last", "second"]
    liar.close()


def test_a_redacted_state_is_not_shown_whole_by_a_server_that_knows_of_no_redaction(server, alice, resident):
    room = alice.create_room(preset="public_chat", room_version="11")
    power = alice.state(room, "m.room.power_levels")
    copy = resident.join(server, room)
    power["users"][copy.user] = 100
    alice.set_state(room, "m.room.power_levels", power)
    resident.until(lambda: any(event["type"] == "m.room.power_levels" for event in resident.pdus))
    resident.catch_up(server, copy)
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    later = resident.events[copy.ends[0]]["origin_server_ts"] + 10_000
    topic = resident.next(copy, "m.room.topic", {"topic": "a secret"}, state_key="", origin_server_ts=later)
    fork = fork_of(copy)
    resident.next(copy, "m.room.topic", {"topic": "fine"}, state_key="")
    redaction = resident.next(copy, "m.room.redaction", {"redacts": id_of(topic)})
    alice.sync()
    resident.transact(server, [redaction])
    see(alice, room, id_of(redaction))
    told = place_message(resident, fork, "from the fork")
    resident.transact(server, [told])
    see(alice, room, id_of(told))
    known = lambda: alice.send_raw("GET", address("rooms/{roomId}/state", room)).text
    until(lambda: "m.room.topic" in known())
    assert "a secret" not in known()
    shown = alice.send_raw("GET", address("rooms/{roomId}/event/{eventId}", room, id_of(topic)))
    assert "a secret" not in shown.text
