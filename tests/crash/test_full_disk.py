"""A full disk: writes are refused with an error, nothing is lost, and it goes on when there is room again."""

import contextlib
import os
import subprocess
import time

import pytest

from harness.client import Client
from harness.senders import Load, Sender, check_sender, room_messages
from harness.server import Server

DISK_MIB = 96
# What is left to the server when the disk is filled up.
LEFT_BYTES = 2 * 1024 * 1024
RECOVERY_SECONDS_MAX = 30


@contextlib.contextmanager
def small_disk(path):
    path.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "warren-test", str(path)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk):
    """Takes all space but a little."""
    free = os.statvfs(disk)
    ballast = disk / "ballast"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - LEFT_BYTES)
    return ballast


def test_full_disk(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        server = Server(disk / "data")
        server.log_path = tmp_path / "server.log"
        with server:
            user = Client(server.base_url).register("filler")
            room = user.create_room()
            user.send(room, "before/0")
            ballast = fill(disk)
            sender = Sender("s", user, room)
            load = Load([sender])
            load.start(server.port)
            for thread in load.threads:
                thread.join()
            status, answer = sender.refusals[0]
            assert status == 503, (status, answer)
            assert answer["errcode"] and answer["error"]
            # What is there can be read, and a refused write has left nothing.
            check(user, room, sender)
            assert user.get("account/whoami")["user_id"] == user.user_id

            ballast.unlink()
            recovers(server, sender)
            check(user, room, sender)
            server.kill()
            server.check()
            server.start()
            check(user, room, sender)


def recovers(server, sender):
    """Sends until it is acknowledged again."""
    end, before = time.monotonic() + RECOVERY_SECONDS_MAX, sender.next_number
    while sender.next_number == before:
        assert time.monotonic() < end, f"still refused: {sender.refusals[-1]}\n{server.log_tail()}"
        load = Load([sender])
        load.start(server.port)
        load.wait_for(1)
        load.finish()


def check(user, room, sender):
    seen = []
    for event in room_messages(user, room):
        name, _, number = event["content"]["body"].rpartition("/")
        if name == sender.name:
            seen.append((int(number), event["event_id"]))
    check_sender(sender, seen)
