"""`kill -9` under load: what was acknowledged is there once and in order after each restart."""

import random
import threading

import requests

from harness.client import Client, timeline
from harness.senders import Load, Sender, room_messages
from harness.server import Server
from harness.waiting import until

ROUNDS = 50
SENDERS = 64
ROOMS = 4
# A round ends after a random number of acknowledgements, from the first one on.
ACKNOWLEDGED_MAX = 400


def lay_out(server):
    """The users and rooms, and the senders spread over them."""
    nobody = Client(server.base_url)
    users = [nobody.register("sender") for _ in range(ROOMS * 2)]
    rooms = []
    for owner in users[:ROOMS]:
        room = owner.create_room(preset="public_chat")
        rooms.append(room)
        for user in users:
            user.join(room)
    senders = [
        Sender(f"s{number}", users[number % len(users)], rooms[number // len(users) % ROOMS])
        for number in range(SENDERS)
    ]
    return users[0], rooms, Load(senders)


def test_kill_under_load(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Server(tmp_path / "data") as server:
        reader, rooms, load = lay_out(server)
        for _ in range(ROUNDS):
            before, more = load.count, chance.randint(1, ACKNOWLEDGED_MAX)
            load.start(server.port, more, server.kill)
            load.end()
            assert load.count >= before + more, server.log_tail()
            refused = [refusal for sender in load.senders for refusal in sender.refusals]
            assert not refused, refused[:3]
            server.check()
            server.start()
            reader.http.close()
            load.check({room: room_messages(reader, room) for room in rooms})


def test_kill_while_it_starts(tmp_path):
    """A start that is cut short at any moment leaves data that the next one opens."""
    chance = random.Random()
    with Server(tmp_path / "data") as server:
        user = Client(server.base_url).register("early")
        room = user.create_room()
        event = user.send(room, "before")
        server.kill()
        for _ in range(10):
            process = server.spawn()
            # The process may end by itself only through the kill: the time is random, nothing is waited for.
            assert not exited_within(process, chance.uniform(0, 0.3))
            server.kill()
        server.start()
        assert user.get("rooms/{roomId}/event/{eventId}", room, event)["content"]["body"] == "before"


def is_joined(client, room, user):
    content = client.get("rooms/{roomId}/state/{eventType}/{stateKey}", room, "m.room.member", user.user_id)
    return content["membership"] == "join"


def test_kill_while_an_account_is_closed(tmp_path):
    """Whoever closes their account is out of all rooms in the end."""
    with Server(tmp_path / "data") as server:
        mate, leaver = (Client(server.base_url).register(word) for word in ("mate", "leaver"))
        rooms = {mate.create_room(preset="public_chat") for _ in range(100)}
        for room in rooms:
            leaver.join(room)
        mate.sync()

        def close():
            try:
                leaver.with_password("POST", "account/deactivate")
            except requests.ConnectionError:
                pass

        def is_first_left(answer):
            events = [event for room in rooms for event in timeline(answer, room)]
            return any(event["content"].get("membership") == "leave" for event in events)

        closing = threading.Thread(target=close)
        closing.start()
        mate.sync_until(is_first_left)
        server.kill()
        closing.join()
        server.check()
        server.start()
        mate.http.close()
        until(lambda: not any(is_joined(mate, room, leaver) for room in rooms))


def exited_within(process, seconds):
    try:
        process.wait(seconds)
        return True
    except Exception:
        return False
