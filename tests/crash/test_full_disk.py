"""A full disk: writes are refused with an error, nothing is lost, and it goes on when there is room again."""

import contextlib
import json
import os
import subprocess
import time

import requests

from harness.client import Client, address
from harness.senders import Load, Sender, check_sender, room_messages
from harness.server import Server, free_port

DISK_MIB = 96
# What is left to the server when the disk is filled up.
LEFT_BYTES = 2 * 1024 * 1024
RECOVERY_SECONDS_MAX = 30


@contextlib.contextmanager
def small_disk(path):
    path.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "warren-test", str(path)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
    hint = "who is not root needs `unshare --map-root-user --mount`, as ./x does"
    assert mounted.returncode == 0, f"no small disk can be mounted ({hint}): {mounted.stderr.strip()}"
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
        metrics = f"http://127.0.0.1:{free_port()}"
        server = Server(disk / "data", "--metrics-listen", metrics, "--log-format", "json")
        server.log_path = tmp_path / "server.log"
        with server:
            user = Client(server.base_url).register("filler")
            room = user.create_room()
            user.send(room, "before/0")
            assert server.health() == (200, "ok") and failed_commits(metrics) == 0
            ballast = fill(disk)
            sender = Sender("s", user, room)
            load = Load([sender])
            load.start(server.port)
            for thread in load.threads:
                thread.join()
            status, answer = sender.refusals[0]
            assert status == 503, (status, answer)
            assert answer["errcode"] and answer["error"]
            refused_requests_are_told(server, user, room)
            files_are_refused(server, user)
            assert server.health() == (503, "refusing_writes") and failed_commits(metrics) > 0
            assert "nothing can be written" in requests.get(server.base_url, timeout=10).text
            # What is there can be read, and a refused write has left nothing.
            check(user, room, sender)
            assert user.get("account/whoami")["user_id"] == user.user_id

            ballast.unlink()
            # Nobody has to try, for it to be known that there is room again.
            is_well_again(server)
            recovers(server, sender)
            check(user, room, sender)
            assert upload(user).status_code == 200
            server.kill()
            server.check()
            server.start()
            check(user, room, sender)


def take_the_rest(disk):
    """Takes what is left, page by page."""
    rest = disk / "rest"
    with open(rest, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return rest


def test_a_log_on_the_full_disk_holds_nothing_up(tmp_path):
    with small_disk(tmp_path / "disk") as disk, Server(disk / "data", "--log", "warren=debug") as server:
        assert server.log_path.parent == disk
        user = Client(server.base_url).register("filler")
        sender = Sender("s", user, user.create_room())
        ballast = fill(disk)
        load = Load([sender])
        load.start(server.port)
        load.end()
        assert sender.refusals[0][0] == 503
        rest = take_the_rest(disk)
        # Of these the log has no room to tell, once its last page is full.
        for _ in range(50):
            assert server.health() == (503, "refusing_writes")
            load.start(server.port)
            load.end()
        assert {status for status, _ in sender.refusals} == {503} and os.statvfs(disk).f_bavail == 0
        check(user, sender.room, sender)
        ballast.unlink()
        rest.unlink()
        is_well_again(server)
        recovers(server, sender)
        check(user, sender.room, sender)
        assert server.stop() == 0
        server.check()


def failed_commits(metrics):
    lines = requests.get(f"{metrics}/metrics", timeout=10).text.splitlines()
    return next(float(line.split(" ")[1]) for line in lines if line.startswith("warren_engine_commits_failed_total "))


def refused_requests_are_told(server, user, room):
    """In the log, under the id that the answer carries: the endpoint, and the cause that the client is not told."""
    path = address("rooms/{roomId}/send/m.room.message/{txnId}", room, "refused")
    answer = user.send_raw("PUT", path, json={"msgtype": "m.text", "body": "refused"})
    assert answer.status_code == 503
    lines = [json.loads(line) for line in server.log_path.read_text().splitlines()]
    told = [line for line in lines if str(line.get("id")) == answer.headers["X-Request-Id"]]
    cause, request = told
    assert cause["level"] == "ERROR" and cause["cause"], cause
    assert request["level"] == "WARN" and request["status"] == 503 and request["sender"] == user.user_id
    assert request["route"].endswith("/send/{eventType}/{txnId}") and request["ms"] > 0
    assert request["fault"] == answer.json()["error"]


def upload(user):
    """Sends a file for which there is no room while the disk is full."""
    return user.send_raw("POST", "/_matrix/media/v3/upload", data=bytes(2 * LEFT_BYTES), headers={"Content-Type": "image/png"})


def files_are_refused(server, user):
    """Like any other write, and what has come of one takes no room."""
    answer = upload(user)
    assert answer.status_code == 503, answer.text
    assert answer.json()["errcode"] == "M_UNKNOWN" and "try again" in answer.json()["error"]
    assert list((server.data_dir / "media" / "temporary").iterdir()) == []


def is_well_again(server):
    end = time.monotonic() + RECOVERY_SECONDS_MAX
    while server.health() != (200, "ok"):
        assert time.monotonic() < end, f"still not well\n{server.log_tail()}"


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
