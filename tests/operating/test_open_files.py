"""Open files: connections that others open never take the descriptors that the store needs."""

import pathlib
import re
import resource
import socket

import pytest

from harness.client import Client
from harness.server import Server, sound
from harness.waiting import until

# Some less than the server needs at least, and some more.
TOO_FEW = 600
FEW = 800
FULL = "further ones wait"


def limited(server, command):
    """Starts the server with another limit of open files."""
    server.wrapper = ["sh", "-c", f'ulimit {command} && exec "$@"', "sh"]
    return server


def limit_of(server):
    """The soft and the hard limit of the process."""
    limits = pathlib.Path(f"/proc/{server.process.pid}/limits").read_text()
    return re.search(r"^Max open files +(\S+) +(\S+)", limits, re.MULTILINE).groups()


@pytest.fixture
def many_sockets():
    """This process opens more than the server may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 4 * FEW), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def half_sent(server):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n")
    return connection


def test_half_sent_requests_do_not_keep_the_store_from_writing(tmp_path, many_sockets):
    with sound(limited(Server(tmp_path / "data"), f"-n {FEW}")) as server:
        user = Client(server.base_url).register("somebody")
        room = user.create_room()
        assert FULL not in server.log_path.read_text()
        held = [half_sent(server) for _ in range(FEW + 50)]
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
