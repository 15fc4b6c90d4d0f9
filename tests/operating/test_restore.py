"""A copy of the data folder is put back, and a log is damaged: clients get all that is there, and the operator is told what is
not."""

import pytest

from harness.client import Client, bodies, timeline
from harness.deliveries import send_to_device
from harness.server import Server

COUNT = 15
WARNING = "bytes of the database's log cannot be read"
ALGORITHM = "signed_curve25519"
DAMAGE = b"\xff\x00\xff\x00"


def with_messages(server):
    """A user, and a room in which they have said so much."""
    alice = Client(server.base_url).register("alice")
    room = alice.create_room()
    for number in range(COUNT):
        alice.send(room, f"{number}")
    return alice, room


def contents(answer):
    return [event["content"]["number"] for event in answer.get("to_device", {}).get("events", [])]


def test_clients_of_a_database_that_was_lost_miss_nothing(tmp_path):
    copy = tmp_path / "copy"
    with Server(tmp_path / "data") as server:
        alice = Client(server.base_url).register("alice")
        bob = Client(server.base_url).register("bob")
        room, quiet = (alice.create_room(preset="public_chat") for _ in range(2))
        for place in (room, quiet):
            bob.join(place)
        bob.sync()
        server.keep_copy(copy)
        # What the copy lacks: the room's last messages, that Bob left the other room, and how far he got.
        for number in range(COUNT):
            alice.send(room, f"lost {number}")
            send_to_device(alice, {bob.user_id: {"*": {"number": -number}}})
        bob.leave(quiet)
        assert quiet in bob.sync()["rooms"]["leave"]
        server.restore(copy)
        # More than was lost.
        for number in range(2 * COUNT):
            alice.send(room, str(number))
            send_to_device(alice, {bob.user_id: {"*": {"number": number}}})
        answer = bob.sync(filter='{"room": {"timeline": {"limit": 100}}}')
        # He is told of all, for what he knows is of another time.
        assert set(answer["rooms"]["join"]) == {room, quiet}
        said = [body for body in bodies(timeline(answer, room)) if body.isdigit()]
        assert said == [str(number) for number in range(2 * COUNT)]
        assert contents(answer) == list(range(2 * COUNT))
        # It goes on from there, also over a restart.
        alice.send(room, "afterwards")
        server.stop()
        server.start()
        assert bodies(timeline(bob.sync(), room)) == ["afterwards"]
        server.stop()
        server.check()


def upload(user, *names):
    """Uploads one-time keys, and answers how many there are then."""
    key = {"key": "A" * 43, "signatures": {user.user_id: {f"ed25519:{user.device_id}": "B" * 86}}}
    keys = {f"{ALGORITHM}:{name}": key for name in names}
    return user.post("keys/upload", json={"one_time_keys": keys})["one_time_key_counts"][ALGORITHM]


def claim(user, of):
    """The names of the keys that are given out for a device."""
    wanted = {"one_time_keys": {of.user_id: {of.device_id: ALGORITHM}}}
    claimed = user.post("keys/claim", json=wanted)["one_time_keys"]
    return {name.split(":")[1] for name in claimed.get(of.user_id, {}).get(of.device_id, {})}


def test_what_a_lost_database_knew_of_devices_is_asked_for_anew(tmp_path):
    copy = tmp_path / "copy"
    with Server(tmp_path / "data") as server:
        alice, bob, carol, dora = (Client(server.base_url).register(name) for name in ("alice", "bob", "carol", "dora"))
        room = alice.create_room(preset="public_chat")
        bob.join(room)
        alice.invite(room, carol)
        dora.create_room()
        assert upload(bob, "first", "second") == 2
        alice.sync()
        server.keep_copy(copy)
        assert claim(alice, bob) == {"first"}
        assert upload(bob, "lost") == 2
        lost = {user: user.sync()["next_batch"] for user in (alice, bob)}
        server.restore(copy)
        followed = {alice.user_id, bob.user_id, carol.user_id}
        answer = alice.sync()
        assert set(answer["device_lists"]["changed"]) == followed
        assert not answer["device_lists"].get("left")
        changes = alice.get("keys/changes", query={"from": lost[alice], "to": alice.since})
        assert set(changes["changed"]) == followed
        # Whoever has no token knows nothing that may be wrong.
        assert "device_lists" not in alice.login().sync()
        # Bob has no key that somebody may have used, and is told so at once.
        assert bob.sync()["device_one_time_keys_count"] == {ALGORITHM: 0}
        assert claim(alice, bob) == set()
        assert upload(bob, "new") == 1
        # His client may have stored what it got too late, and come again from where it was; what he made since is kept.
        assert bob.sync(since=lost[bob])["device_one_time_keys_count"] == {ALGORITHM: 1}
        assert claim(alice, bob) == {"new"}
        # From then on all is as ever.
        assert "device_lists" not in alice.sync()
        server.stop()
        server.check()


@pytest.mark.parametrize("first", ["check", "serve"])
def test_a_damaged_log_is_told(tmp_path, first):
    with Server(tmp_path / "data") as server:
        alice, room = with_messages(server)
        server.kill()
        server.start()
        assert WARNING not in server.log_tail()
        for number in range(COUNT):
            alice.send(room, f"{number} more")
        server.kill()
        log = max(server.data_dir.glob("store/*.log"), key=lambda path: path.stat().st_size)
        content = bytearray(log.read_bytes())
        middle = len(content) // 2
        content[middle : middle + len(DAMAGE)] = DAMAGE
        log.write_bytes(content)
        if first == "check":
            options = ["--data-dir", str(server.data_dir), "--server-name", server.name]
            assert WARNING in server.command("check", *options).stderr
        server.start()
        assert (WARNING in server.log_tail()) == (first == "serve")
        alice.http.close()
        said = bodies(alice.messages(room, limit=1000)["chunk"])
        assert COUNT <= len(said) < 2 * COUNT
        server.stop()
        server.check()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("missing", ["CURRENT", "*.log"])
def test_what_is_restored_in_part_is_told_and_left_alone(tmp_path, missing):
    with Server(tmp_path / "data") as server:
        alice, room = with_messages(server)
        server.stop()
        store = server.data_dir / "store"
        taken = {path: path.read_bytes() for path in store.glob(missing)}
        assert taken
        for path in taken:
            path.unlink()
        left = files(store)
        options = ["--data-dir", str(server.data_dir), "--server-name", server.name]
        # Each may find what the one before has left.
        for command in ("check", "serve", "check", "serve"):
            refused = server.command(command, *(server.options if command == "serve" else options))
            assert refused.returncode == (1 if command == "serve" else 2), refused.stderr
            assert f"incomplete, {missing} is missing" in refused.stderr
            assert files(store) == left
        for path, content in taken.items():
            path.write_bytes(content)
        server.check()
        server.start()
        alice.http.close()
        assert len(bodies(alice.messages(room, limit=1000)["chunk"])) == COUNT
