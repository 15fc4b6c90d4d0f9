"""Relaxed durability: a crash of the server loses nothing either, because the system has every write."""

from harness.client import Client, bodies
from harness.server import Server


def test_a_killed_server_with_relaxed_durability_keeps_what_it_answered(tmp_path):
    with Server(tmp_path / "data", "--durability", "relaxed") as server:
        user = Client(server.base_url).register("somebody")
        room = user.create_room()
        for number in range(50):
            user.send(room, str(number))
        server.kill()
        server.check()
        server.start()
        user.http.close()
        said = bodies(user.messages(room, direction="b", limit=60)["chunk"])
        assert said == [str(number) for number in reversed(range(50))]
