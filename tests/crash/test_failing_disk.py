"""A disk that fails for a while, other than by being full: writes are refused, what was acknowledged stays, and once the disk takes
writes again so does the server, without anybody's doing.

The faults are those of system calls, as `strace` has them fail for the time of which it is attached.
"""

import contextlib
import signal
import subprocess

import pytest

from harness.client import Client
from harness.senders import Load, Sender, room_messages
from harness.server import Server
from harness.waiting import until

# From a quota and from a device: the log's record cannot be written, or not be synced.
FAULTS = [("EDQUOT", "write"), ("EIO", "fdatasync")]
# A minute after the start at the earliest, and then two looks at the disk, a start, and as much again for a loaded machine.
RECOVERY_SECONDS_MAX = 200


@contextlib.contextmanager
def failing(server, error, call):
    """Has a system call on the store's log fail."""
    log = max(server.data_dir.glob("store/*.log"), key=lambda path: int(path.stem))
    fault = ["-P", str(log), "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(server.process.pid), *fault, "-o", "/dev/null"], stderr=subprocess.PIPE, text=True
    )
    try:
        told = tracer.stderr.readline()
        assert "attached" in told, told
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)


def send(server, sender):
    """Sends a message; whether it was acknowledged. It may be that nobody listens, while the server starts anew."""
    before = sender.next_number
    load = Load([sender])
    load.start(server.port)
    load.wait_for(1)
    load.finish()
    return sender.next_number > before


def is_sound(server, sender):
    Load([sender]).check({sender.room: room_messages(sender.client, sender.room)})


def breaks(server, error, call):
    """Sends until the disk fails. What is refused then stays so, also when the disk is well."""
    client = Client(server.base_url).register("sender")
    sender = Sender("s", client, client.create_room())
    assert send(server, sender)
    with failing(server, error, call):
        assert not send(server, sender)
    assert not send(server, sender)
    assert server.health() == (503, "refusing_writes")
    is_sound(server, sender)
    return sender


def recovers(server, sender):
    until(lambda: send(server, sender), RECOVERY_SECONDS_MAX)
    assert {status for status, _ in sender.refusals} == {503}
    assert server.health() == (200, "ok")
    # It is the same process, for whoever watches over it.
    assert server.process.poll() is None
    assert "the server starts anew" in server.log_path.read_text()
    sender.client.http.close()
    is_sound(server, sender)
    server.kill()
    server.check()
    server.start()
    sender.client.http.close()
    is_sound(server, sender)


def test_a_server_recovers_from_a_disk_that_has_failed(tmp_path):
    with contextlib.ExitStack() as stack:
        # Side by side, as what takes long is waiting.
        servers = [stack.enter_context(Server(tmp_path / error)) for error, _ in FAULTS]
        senders = [breaks(server, *fault) for server, fault in zip(servers, FAULTS, strict=True)]
        for server, sender in zip(servers, senders, strict=True):
            recovers(server, sender)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_whose_disk_fails_ends_when_it_is_told_to(tmp_path, signal_number):
    with Server(tmp_path / "data") as server:
        sender = breaks(server, *FAULTS[0])
        server.process.send_signal(signal_number)
        assert server.process.wait(10) == 0, server.log_tail()
        server.start()
        sender.client.http.close()
        assert send(server, sender)
        is_sound(server, sender)
