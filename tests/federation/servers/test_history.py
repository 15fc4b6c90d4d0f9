"""History that a server does not have is asked for when somebody reads it."""

from harness.client import bodies

EVENTS = 1_000


def all_messages(client, room):
    """The room's messages, oldest first."""
    seen, query = [], {"dir": "b", "limit": 100}
    while True:
        page = client.get("rooms/{roomId}/messages", room, query=query)
        seen += page["chunk"]
        if "end" not in page:
            return bodies(seen[::-1])
        query["from"] = page["end"]


def test_we_read_what_they_said_before_we_came(there, alice, bob):
    room = bob.create_room(preset="public_chat")
    for number in range(EVENTS):
        bob.send(room, f"message {number}")
    alice.join(room, query={"via": there.name, "server_name": there.name})
    assert all_messages(alice, room) == [f"message {number}" for number in range(EVENTS)]


def test_they_read_what_we_said_before_they_came(here, alice, bob):
    room = alice.create_room(preset="public_chat")
    for number in range(EVENTS):
        alice.send(room, f"message {number}")
    bob.join(room, query={"via": here.name, "server_name": here.name})
    wanted = [f"message {number}" for number in range(EVENTS)]
    # Synapse gives what it has and asks for the rest behind.
    bob.sync_until(lambda _: all_messages(bob, room) == wanted, seconds=40)


def test_what_was_said_in_private_before_stays_private(there, alice, bob):
    visibility = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = bob.create_room(preset="public_chat", initial_state=[visibility])
    bob.send(room, "not for you")
    alice.join(room, query={"via": there.name, "server_name": there.name})
    bob.send(room, "for you")
    alice.sync_until(lambda _: "for you" in all_messages(alice, room))
    assert all_messages(alice, room) == ["for you"]
