"""`kill -9` under load: what was acknowledged is there once and in order after each restart."""

import json
import random
import threading

import pytest
import requests

from harness.client import Client, joined, timeline, unique
from harness.participant import SECONDS_MAX, Participant
from harness.policies import SIGN, enable, signs
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
        assert server.stop() == 0
        server.check()


def is_joined(client, room, user):
    content = client.get("rooms/{roomId}/state/{eventType}/{stateKey}", room, "m.room.member", user.user_id)
    return content["membership"] == "join"


@pytest.fixture
def policy(network):
    """A policy server that answers nothing until it is let."""
    peer = signs(network.peer(kind=Participant))
    peer.sign_at_once, peer.let = peer.answers[SIGN], threading.Event()

    def sign_when_let(request):
        peer.let.wait(SECONDS_MAX)
        return peer.sign_at_once(request)

    peer.answers[SIGN] = sign_when_let
    yield peer
    peer.let.set()
    peer.close()


def test_kill_while_an_account_is_closed(network, tmp_path, policy):
    """Whoever closes their account is out of all rooms in the end. The policy server of a room in the midst of them keeps them
    from getting there before the kill."""
    with network.server(tmp_path) as server:
        mate, leaver = (Client(server.base_url).register(word) for word in ("mate", "leaver"))
        rooms = [mate.create_room(preset="public_chat", room_version="11") for _ in range(100)]
        for room in rooms:
            leaver.join(room)
        held = rooms[len(rooms) // 2]
        policy.join(server, held)
        enable(mate, held, policy)
        mate.sync()
        answered = []

        def close():
            try:
                answered.append(leaver.with_password("POST", "account/deactivate"))
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
        assert not answered, "it came too late"
        server.check()
        before = len(policy.asked(SIGN))
        server.start()
        mate.http.close()
        # It is taken up again by itself, and was not over.
        until(lambda: len(policy.asked(SIGN)) > before)
        assert is_joined(mate, held, leaver)
        policy.let.set()
        until(lambda: not any(is_joined(mate, room, leaver) for room in rooms))


def name_shown(client, room, user):
    content = client.get("rooms/{roomId}/state/{eventType}/{stateKey}", room, "m.room.member", user.user_id)
    return content.get("displayname")


def test_kill_while_rooms_are_told_of_a_profile(network, tmp_path, policy):
    """All rooms show a new name in the end. The policy server of one in the midst of them keeps it from the rest before the
    kill."""
    with network.server(tmp_path) as server:
        mate, changer = (Client(server.base_url).register(word) for word in ("mate", "changer"))
        rooms = [mate.create_room(preset="public_chat", room_version="11") for _ in range(50)]
        for room in rooms:
            changer.join(room)
        held = rooms[len(rooms) // 2]
        policy.join(server, held)
        enable(mate, held, policy)
        answered = []

        def change():
            try:
                name = {"displayname": "Renamed"}
                answered.append(changer.put("profile/{userId}/{keyName}", changer.user_id, "displayname", json=name))
            except requests.ConnectionError:
                pass

        changing = threading.Thread(target=change)
        changing.start()
        until(lambda: policy.asked(SIGN))
        server.kill()
        changing.join()
        assert not answered, "it came too late"
        server.check()
        before = len(policy.asked(SIGN))
        server.start()
        mate.http.close()
        until(lambda: len(policy.asked(SIGN)) > before)
        # The other rooms do not wait for that one.
        others = [room for room in rooms if room != held]
        until(lambda: all(name_shown(mate, room, changer) == "Renamed" for room in others))
        assert name_shown(mate, held, changer) != "Renamed"
        policy.let.set()
        until(lambda: name_shown(mate, held, changer) == "Renamed")


def test_kill_while_guests_leave_a_room(network, tmp_path, policy):
    """Those whose leaves the policy server has not signed yet are out of the room in the end."""
    with network.server(tmp_path) as server:
        owner, nobody = Client(server.base_url).register("owner"), Client(server.base_url)
        room = owner.create_room(preset="public_chat", room_version="11")
        opened = owner.set_state(room, "m.room.guest_access", {"guest_access": "can_join"})
        guest = nobody.signed_in(nobody.post("register", query={"kind": "guest"}))
        guest.join(room)
        policy.join(server, room)
        enable(owner, room, policy)
        # What closes the room is signed, and nobody's leave.
        when_let = policy.answers[SIGN]
        is_leave = lambda request: json.loads(request.body)["content"].get("membership") == "leave"
        policy.answers[SIGN] = lambda request: (when_let if is_leave(request) else policy.sign_at_once)(request)
        leaves = lambda: sum(map(is_leave, policy.asked(SIGN)))
        owner.put("rooms/{roomId}/redact/{eventId}/{txnId}", room, opened, unique("txn"))
        server.kill()
        server.check()
        before = leaves()
        server.start()
        owner.http.close()
        until(lambda: leaves() > before)
        assert is_joined(owner, room, guest)
        policy.let.set()
        until(lambda: not is_joined(owner, room, guest))


def test_who_is_gone_when_the_server_comes_back_is_told_to_be(tmp_path):
    """As present, and as typing."""
    with Server(tmp_path / "data") as server:
        watcher, gone, stays = (Client(server.base_url).register(word) for word in ("watcher", "gone", "stays"))
        room = watcher.create_room(preset="public_chat")
        for user in (gone, stays):
            user.join(room)
            user.sync()
        gone.put("rooms/{roomId}/typing/{userId}", room, gone.user_id, json={"typing": True, "timeout": 120000})
        present, typing = {}, []

        def note(answer):
            for event in answer.get("presence", {}).get("events", []):
                present[event["sender"]] = event["content"]["presence"]
            for event in joined(answer, room).get("ephemeral", {}).get("events", []):
                if event["type"] == "m.typing":
                    typing.append(event["content"]["user_ids"])

        def is_seen(answer):
            note(answer)
            return {present.get(user.user_id) for user in (gone, stays)} == {"online"} and typing[-1:] == [[gone.user_id]]

        watcher.sync_until(is_seen)
        server.kill()
        server.check()
        server.start()
        for user in (watcher, stays):
            user.http.close()
        stays.send(room, "still here")

        def is_told(answer):
            note(answer)
            stays.sync()
            return present[gone.user_id] == "offline" and typing[-1] == []

        # Whoever was there has half a minute to come back.
        watcher.sync_until(is_told, seconds=90)
        assert present[stays.user_id] == "online"


def exited_within(process, seconds):
    try:
        process.wait(seconds)
        return True
    except Exception:
        return False
