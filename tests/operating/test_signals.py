"""What the server does at a signal, beside ending when it is told to."""

import os
import shutil
import signal
import ssl
import subprocess

import requests

from harness import server as binary
from harness.certificates import Authority
from harness.client import Client
from harness.server import STOP_SECONDS_MAX, Server, free_port
from harness.waiting import until

# The server looks at its certificate every ten seconds by itself.
AT_ONCE_SECONDS = 5


def test_at_a_hang_up_the_certificate_is_read_again(tmp_path):
    authority, port = Authority(tmp_path), free_port()
    used = tmp_path / "used.pem"
    shutil.copy(authority.certificate("localhost"), used)
    options = ["--listen", f"https://127.0.0.1:{port}", "--tls-cert", str(used), "--tls-key", str(used)]
    with Server(tmp_path / "data", *options, port=port) as server:

        def shown():
            return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)

        before = shown()
        os.replace(authority.certificate("localhost"), used)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: shown() != before, AT_ONCE_SECONDS)
        assert server.stop() == 0, server.log_tail()


def test_a_hang_up_ends_nothing(tmp_path):
    with Server(tmp_path / "data") as server:
        user = Client(server.base_url).register("somebody")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "SIGHUP" in server.log_path.read_text())
        assert user.create_room()
        assert server.stop() == 0, server.log_tail()


def test_a_server_in_a_terminal_ends_in_order_with_it(tmp_path):
    server = Server(tmp_path / "data")
    outside, terminal = os.openpty()
    process = subprocess.Popen(
        [binary.binary(), "serve", *server.options],
        env=binary.own_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)

    def answers():
        try:
            return requests.get(f"{server.base_url}/health", timeout=10).ok
        except requests.ConnectionError:
            return False

    try:
        until(answers)
        process.send_signal(signal.SIGHUP)
        assert process.wait(STOP_SECONDS_MAX) == 0
    finally:
        process.kill()
        process.wait()
        os.close(outside)
    server.check()
