"""History that a server does not have is asked for when somebody reads it."""

from harness.client import bodies
from harness.federated import Warren
from harness.rooms import see, via
from harness.senders import room_messages
from harness.server import sound

EVENTS = 1_000


def all_messages(client, room):
    """The texts of the room, oldest first, read by a hundred."""
    return bodies(room_messages(client, room, limit=100))


def test_we_read_what_they_said_before_we_came(there, alice, bob):
    room = bob.create_room(preset="public_chat")
    for number in range(EVENTS):
        bob.send(room, f"message {number}")
    alice.join(room, query=via(there))
    assert all_messages(alice, room) == [f"message {number}" for number in range(EVENTS)]


def test_what_was_read_in_part_is_sound_and_goes_on_in_order(there, bob, authority, tmp_path):
    room = bob.create_room(preset="public_chat")
    wanted = [f"message {number}" for number in range(250)]
    for text in wanted:
        bob.send(room, text)
    with sound(Warren(tmp_path / "data", authority)) as server:
        alice = server.client(server.base_url).register("alice")
        alice.join(room, query=via(there))
        assert len(alice.messages(room, limit=20)["chunk"]) == 20
        assert server.stop() == 0
        server.check()
        repaired = server.command("check", "--repair", "--data-dir", str(server.data_dir), "--server-name", server.name)
        assert repaired.returncode == 0, repaired.stdout + repaired.stderr
        server.start()
        alice.base_url = server.base_url
        assert all_messages(alice, room) == wanted


def test_they_read_what_we_said_before_they_came(here, alice, bob):
    room = alice.create_room(preset="public_chat")
    for number in range(EVENTS):
        alice.send(room, f"message {number}")
    bob.join(room, query=via(here))
    wanted = [f"message {number}" for number in range(EVENTS)]
    # Synapse gives what it has and asks for the rest behind.
    bob.sync_until(lambda _: all_messages(bob, room) == wanted, seconds=40)


def test_what_was_said_in_private_before_stays_private(there, alice, bob):
    visibility = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = bob.create_room(preset="public_chat", initial_state=[visibility])
    bob.send(room, "not for you")
    alice.join(room, query=via(there))
    see(alice, room, bob.send(room, "for you"))
    assert all_messages(alice, room) == ["for you"]


def test_what_was_said_before_they_came_is_found_by_its_time(here, there, synapse, alice, bob):
    for owner, guest, server in [(alice, bob, here), (bob, alice, there)]:
        room = owner.create_room(preset="public_chat")
        for number in range(50):
            owner.send(room, f"message {number}")
        guest.join(room, query=via(server))
        said = room_messages(owner, room)
        times = [event["origin_server_ts"] for event in said]
        # None before it is as old.
        at = next(number for number in range(10, 40) if times[number - 1] < times[number])
        query = {"ts": times[at], "dir": "f"}
        found = guest.get("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", room, query=query)
        assert found == {"event_id": said[at]["event_id"], "origin_server_ts": times[at]}
        context = guest.get("rooms/{roomId}/context/{eventId}", room, found["event_id"], query={"limit": 6})
        assert context["event"]["content"]["body"] == f"message {at}"
        # Synapse fetches that one alone.
        if guest.server_name != synapse.name:
            before, after = ([f"message {at + step * far}" for far in (1, 2, 3)] for step in (-1, 1))
            assert (bodies(context["events_before"]), bodies(context["events_after"])) == (before, after)
