"""Starts and stops the real `warren` binary with a data folder of its own.

It is ready when it says so through systemd's readiness protocol, so nothing here polls or sleeps.
"""

import contextlib
import errno
import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import requests

from harness.waiting import readable, until

# A start is to take a second; a loaded machine gets more before the test fails.
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10


def binary():
    """The binary under test: `TESTED_BINARY`, else the one of the test profile."""
    here = pathlib.Path(__file__).resolve().parent.parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", here / "target"))
    return os.environ.get("TESTED_BINARY", str(target / "debug" / "warren"))


# Where servers that were started are asked for their keys, by their names.
key_addresses = {}

# Ports that were found to be free: what is not listened to yet would be found again.
found_free = set()


def free_port():
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        if port not in found_free:
            found_free.add(port)
            return port


def free_address(port):
    """An address of this machine, which all of 127.0.0.0/8 is, where nobody listens at the port."""

    def look():
        address = "127.{}.{}.{}".format(*(random.randint(1, 254) for _ in range(3)))
        try:
            socket.create_server((address, port)).close()
        except OSError as error:
            assert error.errno == errno.EADDRINUSE, f"this needs the address {address}, which is not here: {error}"
            return None
        return address

    return until(look)


def own_environment():
    """That of the tests, without options of whoever runs them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WARREN_")}


class Server:
    """`warren serve` on a port and data folder that stay the same over restarts."""

    def __init__(self, data_dir, *options, port=None):
        self.data_dir = pathlib.Path(data_dir)
        self.port = port or free_port()
        self.name = f"localhost:{self.port}"
        self.base_url = f"http://127.0.0.1:{self.port}"
        given = {option for option in options if option.startswith("--")}
        kept = [pair for pair in self._defaults() if pair[0] not in given]
        self.options = [*(word for pair in kept for word in pair), *options]
        self.log_path = self.data_dir.parent / f"{self.data_dir.name}.log"
        # What the server is started by: a command that makes way for it, so that the process is the server's all the same.
        self.wrapper = []
        # Variables with which it is started each time.
        self.environment = {}
        self.process = None

    def _defaults(self):
        """Flags with their values; a test that gives one itself replaces it."""
        return [
            ("--server-name", self.name),
            ("--listen", self.base_url),
            ("--data-dir", str(self.data_dir)),
            ("--registration", "open"),
            ("--guests", "on"),
            ("--rate-limits", "off"),
            ("--password-hash-cost", "1"),
        ]

    def start(self, environment=None):
        """Starts the server, with further variables if need be, and returns once it is ready."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            path = os.path.join(folder, "notify")
            notify.bind(path)
            self.spawn(**(environment or {}), NOTIFY_SOCKET=path)
            self._wait_until_ready(notify)
        return self

    def spawn(self, **environment):
        """Starts the process without waiting for anything."""
        names = [name for option, name in itertools.pairwise(self.options) if option == "--server-name"]
        key_addresses.update(dict.fromkeys(names or [self.name], self.base_url))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, binary(), "serve", *self.options],
                env={**own_environment(), **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.process

    def _wait_until_ready(self, notify):
        end = time.monotonic() + START_SECONDS_MAX
        gone = os.pidfd_open(self.process.pid)
        try:
            while True:
                left = max(0, end - time.monotonic())
                ready = readable([notify, gone], left)
                if notify in ready and b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
                assert gone not in ready, f"the server ended at once:\n{self.log_tail()}"
                assert ready or left > 0, f"not ready within {START_SECONDS_MAX} s:\n{self.log_tail()}"
        finally:
            os.close(gone)

    def stop(self, seconds=STOP_SECONDS_MAX):
        """Asks the server to end and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def restart(self):
        """Lets the server end well and starts it again."""
        assert self.stop() == 0, self.log_tail()
        return self.start()

    def kill(self):
        """Ends the server as a power cut would end the process: at once, with nothing flushed by itself."""
        self.process.kill()
        self.process.wait(STOP_SECONDS_MAX)

    def keep_copy(self, folder):
        """Copies the data folder while the server is stopped, and lets the server go on."""
        assert self.stop() == 0, self.log_tail()
        shutil.copytree(self.data_dir, folder)
        return self.start()

    def restore(self, folder):
        """Goes on from a copy, in place of what is there."""
        assert self.stop() == 0, self.log_tail()
        shutil.rmtree(self.data_dir)
        shutil.copytree(folder, self.data_dir)
        return self.start()

    def check(self, seconds=120):
        """Checks the database of the stopped server, which must be sound."""
        options = ["--data-dir", str(self.data_dir), "--server-name", self.name]
        done = self.command("check", *options, seconds=seconds)
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *arguments, seconds=60):
        """Runs another command of the binary, while the server is stopped."""
        command = [binary(), *arguments]
        return subprocess.run(command, env=own_environment(), capture_output=True, text=True, timeout=seconds)

    def make_administrator(self, name):
        """Makes the account of an administrator while the server is stopped. Returns its password."""
        made = self.command("user", "create", name, "--admin", *self.options)
        assert made.returncode == 0, made.stderr
        return made.stdout.split("password: ")[1].strip()

    def health(self):
        """What the server says of itself: the status of the answer, and the word in it."""
        answer = requests.get(f"{self.base_url}/health", timeout=10)
        return answer.status_code, answer.json()["status"]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_tail(self):
        return self.log()[-4000:]

    def disk(self):
        """Bytes in the data folder. Files come and go meanwhile."""
        found = 0
        for path in self.data_dir.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found += path.stat().st_size if path.is_file() else 0
        return found

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.stop()


def limited(server, command):
    """Lets the server start with another limit of open files."""
    server.wrapper = ["sh", "-c", f'ulimit {command} && exec "$@"', "sh"]
    return server


@contextlib.contextmanager
def sound(server):
    """Runs a server, which must end well when it is asked to, and leave a sound database behind."""
    with server:
        yield server
        assert server.stop() == 0, server.log_tail()
        assert "panicked at" not in server.log(), "a fault of the server"
        server.check()
