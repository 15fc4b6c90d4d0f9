"""`durability = "commit"`: no send is answered before a sync to disk that began after the send had come.

Seen from outside, in the server's own system calls, as `strace` writes them down in their order. A send counts as come
when the call that read its head has returned, a sync as begun when its call is entered and as done when it has returned,
an answer as given when the call that writes it is entered: the weakest claim that must hold of each.
"""

import os
import re
import threading

import pytest

from harness.client import Client
from harness.senders import SECONDS_MAX, Load, Sender
from harness.server import Server

READS = {"read", "readv", "recvfrom", "recvmsg"}
WRITES = {"write", "writev", "sendto", "sendmsg"}
SYNCS = {"fsync", "fdatasync"}
ROOMS = 8
# Enough for every interleaving to occur.
SENDS = 600

CALL = re.compile(r"(?:<\.\.\. )?(\w+)(?:\(([^,) ]*)| resumed>)")


class Traced(Server):
    """A server whose system calls are kept in `lines`, from its start on."""

    def start(self, environment=None):
        pipe = self.data_dir.parent / "calls"
        os.mkfifo(pipe)
        self.lines = []
        self.reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self.reader.start()
        calls = ",".join(sorted(READS | WRITES | SYNCS))
        # -D: the process is the server, and the tracer one of its own.
        self.wrapper = ["strace", "-D", "-f", "-qq", "-s", "24", "-y", "-e", f"trace={calls}", "-o", str(pipe)]
        return super().start(environment)

    def _read(self, pipe):
        with open(pipe, errors="replace") as calls:
            self.lines += calls

    def calls(self):
        """All calls, once the server has ended."""
        self.reader.join(SECONDS_MAX)
        assert not self.reader.is_alive(), "the tracer ends with the server"
        return self.lines


def examine(lines):
    """The number of sends that were answered, of those answered too early, and of syncs."""
    # Calls that are entered and have not returned: thread → descriptor, moment.
    entered = {}
    # Sends that are not answered: socket → when they had come.
    due = {}
    sends, early, syncs, last_begun = 0, 0, 0, -1
    for moment, line in enumerate(lines):
        thread, _, rest = line.strip().partition(" ")
        rest = rest.lstrip()
        found = CALL.match(rest)
        if not found:
            continue
        call, descriptor = found.groups()
        begun, is_entry = moment, descriptor is not None
        if not is_entry:
            descriptor, begun = entered.pop(thread, (None, moment))
        has_returned = not rest.endswith("<unfinished ...>")
        if not has_returned:
            entered[thread] = (descriptor, begun)
        if call in SYNCS and has_returned:
            syncs, last_begun = syncs + 1, max(last_begun, begun)
        elif call in READS and has_returned and '"PUT /_matrix/' in rest:
            due[descriptor] = moment
        elif call in WRITES and is_entry and '"HTTP/1.1 200' in rest and descriptor in due:
            sends, early = sends + 1, early + (last_begun < due.pop(descriptor))
    return sends, early, syncs


def traced(tmp_path, senders, durability):
    """What the calls show of so many senders at once, and how many sends were acknowledged."""
    with Traced(tmp_path / "data", "--durability", durability) as server:
        user = Client(server.base_url).register("sender")
        rooms = [user.create_room() for _ in range(min(senders, ROOMS))]
        load = Load([Sender(f"s{number}", user, rooms[number % len(rooms)]) for number in range(senders)])
        load.start(server.port)
        assert load.wait_for(SENDS), server.log_tail()
        load.finish()
        assert server.stop(60) == 0, server.log_tail()
        sends, early, syncs = examine(server.calls())
    acknowledged = sum(len(sender.acknowledged) for sender in load.senders)
    assert sends == acknowledged >= SENDS, "the trace shows every send"
    return sends, early, syncs


@pytest.mark.parametrize("senders", [1, 64])
def test_no_answer_before_its_sync(tmp_path, senders):
    sends, early, syncs = traced(tmp_path, senders, "commit")
    assert early == 0
    assert syncs > 0
    # Those who send side by side share their syncs.
    assert senders == 1 or syncs < sends


def test_without_syncs_the_trace_shows_it(tmp_path):
    sends, early, _ = traced(tmp_path, 1, "relaxed")
    assert early > sends / 2


ASKED = '11 recvfrom(9<socket:[5]>, "PUT /_matrix/client/v3/r"..., 8192, 0, NULL, NULL) = 300'
ANSWERED = '11 writev(9<socket:[5]>, [{iov_base="HTTP/1.1 200 OK\\r\\nconten"..., iov_len=120}], 1) = 120'
BEGINS, ENDS = "12 fdatasync(7</data/000004.log> <unfinished ...>", "12 <... fdatasync resumed>) = 0"


@pytest.mark.parametrize(
    "lines, early",
    [
        ([ASKED, BEGINS, ENDS, ANSWERED], 0),
        ([BEGINS, ASKED, ENDS, ANSWERED], 1),
        ([ASKED, BEGINS, ANSWERED, ENDS], 1),
        ([BEGINS, ENDS, ASKED, ANSWERED], 1),
    ],
)
def test_a_sync_must_begin_after_the_request_and_end_before_the_answer(lines, early):
    assert examine(lines) == (1, early, 1)
