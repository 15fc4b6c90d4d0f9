"""Start and stop: one server per data folder, a graceful end with long polls open, a restart on the same data."""

import signal
import socket
import subprocess
import threading
import time

import requests

from harness import server as binary
from harness.client import Client
from harness.server import Server

STOP_SECONDS_MAX = 5
POLLS = 50


def test_a_second_server_on_the_same_folder_is_refused(tmp_path):
    with Server(tmp_path / "data") as first:
        second = Server(tmp_path / "data")
        done = subprocess.run(
            [binary.binary(), "serve", *second.options], capture_output=True, text=True, timeout=30
        )
        said = done.stdout + done.stderr
        assert done.returncode not in (0, None)
        assert str(tmp_path / "data") in said, said
        assert "panicked" not in said, said
        assert Client(first.base_url).get("/_matrix/client/versions")


def test_sigterm_with_long_polls_open(tmp_path):
    with Server(tmp_path / "data") as server:
        user = Client(server.base_url).register("poller")
        # Who is not shown to be there has nothing to be told at once.
        since = user.sync(set_presence="offline")["next_batch"]
        outcomes = []

        def poll():
            try:
                query = {"since": since, "timeout": 60000, "set_presence": "offline"}
                headers = {"Authorization": f"Bearer {user.token}"}
                path = f"{server.base_url}/_matrix/client/v3/sync"
                outcomes.append(requests.get(path, params=query, headers=headers, timeout=30).status_code)
            except requests.RequestException:
                outcomes.append("closed")

        threads = [threading.Thread(target=poll) for _ in range(POLLS)]
        for thread in threads:
            thread.start()
        wait_for_connections(server.port, POLLS)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS_MAX) == 0, server.log_tail()
        assert time.monotonic() - start < STOP_SECONDS_MAX
        for thread in threads:
            thread.join()
        assert set(outcomes) <= {200, 503, "closed"}, outcomes


def wait_for_connections(port, count):
    """Waits until so many connections to the port are established, as the system's table says."""
    end = time.monotonic() + 20
    wanted = f"0100007F:{port:04X}"
    while True:
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        # Local address is the server's, and state 01 is an established connection.
        if sum(row[1] == wanted and row[3] == "01" for row in rows) >= count:
            return
        assert time.monotonic() < end, "the polls did not connect"


def test_it_answers_within_a_second_of_its_start(tmp_path):
    server = Server(tmp_path / "data")
    start = time.monotonic()
    with server:
        assert Client(server.base_url).get("/_matrix/client/versions")
        assert time.monotonic() - start < 1


def test_a_restart_keeps_everything(tmp_path):
    with Server(tmp_path / "data") as server:
        user = Client(server.base_url).register("keeper")
        room = user.create_room(name="Kept")
        event = user.send(room, "kept")
        since = user.sync()["next_batch"]
        assert server.stop() == 0
        server.start()
        user.http.close()
        assert user.state(room, "m.room.name")["name"] == "Kept"
        assert user.get("rooms/{roomId}/event/{eventId}", room, event)["content"]["body"] == "kept"
        assert user.get("sync", query={"since": since})["next_batch"]
        assert user.login().get("joined_rooms")["joined_rooms"] == [room]


def test_a_taken_port_is_said(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server(tmp_path / "data", port=port)
        done = subprocess.run(
            [binary.binary(), "serve", *server.options], capture_output=True, text=True, timeout=30
        )
        assert done.returncode not in (0, None)
        assert str(port) in done.stdout + done.stderr
