"""Start and stop: one server per data folder, a graceful end with long polls open, a restart on the same data."""

import signal
import socket
import subprocess
import threading
import time

import requests

from harness import server as binary
from harness.client import Client
from harness.server import Server, free_port

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
    metrics = f"http://127.0.0.1:{free_port()}"
    with Server(tmp_path / "data", "--metrics-listen", metrics) as server:
        user = Client(server.base_url).register("poller")
        # Who is not shown to be there has nothing to be told at once.
        since = user.sync(set_presence="offline")["next_batch"]
        outcomes = []

        def poll():
            query = {"since": since, "timeout": 60000, "set_presence": "offline"}
            headers = {"Authorization": f"Bearer {user.token}"}
            path = f"{server.base_url}/_matrix/client/v3/sync"
            try:
                answer = requests.get(path, params=query, headers=headers, timeout=30)
                outcomes.append((answer.status_code, "next_batch" in answer.json()))
            except requests.RequestException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=poll) for _ in range(POLLS)]
        for thread in threads:
            thread.start()
        wait_for_requests(metrics, POLLS)
        assert not outcomes, "they wait"
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS_MAX) == 0, server.log_tail()
        assert time.monotonic() - start < STOP_SECONDS_MAX
        for thread in threads:
            thread.join()
        assert outcomes == [(200, True)] * POLLS


def wait_for_requests(metrics, count):
    """Waits until the server is at so many requests."""
    end = time.monotonic() + 20
    while True:
        figures = dict(line.rsplit(" ", 1) for line in requests.get(f"{metrics}/metrics", timeout=10).text.splitlines() if line)
        # This question is one, too.
        if float(figures["warren_requests_in_flight"]) == count + 1:
            return
        assert time.monotonic() < end, "the polls did not come"


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
        server.restart()
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
