"""A copy of the data folder is put back, and a log is damaged: clients get all that is there, and the operator is told what is
not."""

import shutil

import pytest

from harness.client import Client, bodies, timeline
from harness.deliveries import send_to_device
from harness.server import Server

COUNT = 15
WARNING = "bytes of the database's log cannot be read"
DAMAGE = b"\xff\x00\xff\x00"


def restore(server, copy):
    server.stop()
    shutil.rmtree(server.data_dir)
    shutil.copytree(copy, server.data_dir)
    server.start()


def contents(answer):
    return [event["content"]["number"] for event in answer.get("to_device", {}).get("events", [])]


def test_clients_of_a_database_that_was_lost_miss_nothing(tmp_path):
    copy = tmp_path / "copy"
    with Server(tmp_path / "data") as server:
        alice = Client(server.base_url).register("alice")
        bob = Client(server.base_url).register("bob")
        room = alice.create_room(preset="public_chat")
        bob.join(room)
        bob.sync()
        server.stop()
        shutil.copytree(server.data_dir, copy)
        server.start()
        # What the copy lacks: the room's last messages, a whole room, and how far Bob got.
        for number in range(COUNT):
            alice.send(room, f"lost {number}")
            send_to_device(alice, {bob.user_id: {"*": {"number": -number}}})
        lost = alice.create_room(preset="public_chat")
        bob.join(lost)
        assert lost in bob.sync()["rooms"]["join"]
        restore(server, copy)
        for number in range(COUNT):
            alice.send(room, str(number))
            send_to_device(alice, {bob.user_id: {"*": {"number": number}}})
        answer = bob.sync(filter='{"room": {"timeline": {"limit": 100}}}')
        assert set(answer["rooms"]["join"]) == {room}
        said = [body for body in bodies(timeline(answer, room)) if body.isdigit()]
        assert said == [str(number) for number in range(COUNT)]
        assert contents(answer) == list(range(COUNT))
        # It goes on from there, also over a restart.
        alice.send(room, "afterwards")
        server.stop()
        server.start()
        assert bodies(timeline(bob.sync(), room)) == ["afterwards"]
        server.stop()
        server.check()


@pytest.mark.parametrize("first", ["check", "serve"])
def test_a_damaged_log_is_told(tmp_path, first):
    with Server(tmp_path / "data") as server:
        alice = Client(server.base_url).register("alice")
        room = alice.create_room()
        for number in range(COUNT):
            alice.send(room, f"{number}")
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
