"""Open files: connections that others open never take the descriptors that the store needs."""

import os
import pathlib
import re
import resource
import socket

from harness.client import Client
from harness.server import Server, limited, sound
from harness.waiting import until

# Some less than the server needs at least, and some more.
TOO_FEW = 600
FEW = 800
# What that leaves for connections.
PLACES = 112
# What this process goes on to open.
SPARE = 50
FULL = "further ones wait"


def limit_of(server):
    """The soft and the hard limit of the process."""
    limits = pathlib.Path(f"/proc/{server.process.pid}/limits").read_text()
    return re.search(r"^Max open files +(\S+) +(\S+)", limits, re.MULTILINE).groups()


def many():
    """More connections than the server may have open, where the system's queue and this process's own limit hold so many."""
    free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd")) - SPARE
    queue = int(pathlib.Path("/proc/sys/net/core/somaxconn").read_text())
    count = min(FEW + 50, queue, free)
    assert count > PLACES, f"{count} connections are too few to take all places"
    return count


def half_sent(server):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n")
    return connection


def test_half_sent_requests_do_not_keep_the_store_from_writing(tmp_path):
    with sound(limited(Server(tmp_path / "data"), f"-n {FEW}")) as server:
        user = Client(server.base_url).register("somebody")
        room = user.create_room()
        assert FULL not in server.log_path.read_text()
        held = [half_sent(server) for _ in range(many())]
        until(lambda: FULL in server.log_path.read_text())
        # More than a table takes in memory, so that the store has to open files: over a connection of before, as all of it.
        for _ in range(100):
            user.send(room, "x" * 60_000)
        uploaded = user.send_raw("POST", "/_matrix/media/v3/upload", data=b"a picture", headers={"Content-Type": "image/png"})
        assert uploaded.status_code == 200, uploaded.text
        assert user.send_raw("GET", "/health").json()["status"] == "ok"
        assert server.log_path.read_text().count(FULL) == 1
        for connection in held:
            connection.close()
        other = Client(server.base_url).register("somebody")
        assert other.user_id != user.user_id
        assert user.send(room, "still here")
        assert "cannot accept a connection" not in server.log_path.read_text()


def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path):
    with limited(Server(tmp_path / "data"), "-Sn 512") as server:
        soft, hard = limit_of(server)
        assert soft == hard != "512"
        # It is told how many files may be open, and what that leaves for connections.
        assert re.search(rf"files={hard}\b.* connections=\d+", re.sub(r"\x1b\[\d*m", "", server.log_path.read_text()))


def test_too_few_files_are_refused_with_what_is_to_be_raised(tmp_path):
    server = limited(Server(tmp_path / "data"), f"-n {TOO_FEW}")
    server.spawn()
    assert server.process.wait(20) != 0
    assert f"only {TOO_FEW} open files" in server.log_tail() and "LimitNOFILE" in server.log_tail()
    assert not server.data_dir.exists()
