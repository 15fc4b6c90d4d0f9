"""What the log says of requests, for people and for machines."""

import json
import os
import subprocess

import pytest
import requests

from harness.client import Client, bodies
from harness.server import Server, binary, free_port, own_environment


def test_each_request_has_an_id_and_a_time(tmp_path):
    with Server(tmp_path / "data", "--log", "warren=debug", "--log-format", "json") as server:
        user = Client(server.base_url).register("somebody")
        answer = user.send_raw("GET", "/_matrix/client/v3/account/whoami")
        unknown = requests.get(f"{server.base_url}/_matrix/client/v3/nothing?access_token=secret", timeout=10)
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log_path.read_text().splitlines()]
    by_id = {str(line["id"]): line for line in lines if line["target"] == "warren::request"}
    asked = by_id[answer.headers["X-Request-Id"]]
    assert asked["method"] == "GET" and asked["route"] == "/_matrix/client/v3/account/whoami"
    assert asked["status"] == 200 and asked["sender"] == user.user_id and 0 < asked["ms"] < 10_000
    missed = by_id[unknown.headers["X-Request-Id"]]
    assert missed["status"] == 404 and missed["path"] == "/_matrix/client/v3/nothing" and 0 < missed["ms"] < 10_000
    assert "secret" not in server.log_path.read_text()


def test_no_two_requests_have_the_same_id(tmp_path):
    """Whichever listener they come by, and also after another start."""
    metrics = f"http://127.0.0.1:{free_port()}"
    server = Server(tmp_path / "data", "--metrics-listen", metrics)
    addresses = [f"{server.base_url}/_matrix/client/versions", f"{metrics}/metrics"]
    ids = []
    for _ in range(2):
        with server:
            ids += [requests.get(address, timeout=10).headers["X-Request-Id"] for address in 2 * addresses]
    assert len(set(ids)) == len(ids) == 8, ids


def test_requests_that_are_answered_well_are_not_told_by_default(tmp_path):
    with Server(tmp_path / "data") as server:
        Client(server.base_url).register("somebody").create_room()
    assert "warren::request" not in server.log_path.read_text()


def test_settings_that_are_for_tests_are_told(tmp_path):
    with Server(tmp_path / "data", "--allow-private-addresses", "on") as server:
        pass
    log = server.log_path.read_text()
    assert all(name in log for name in ("rate_limits is off", "password_hash_cost is low", "allow_private_addresses is on"))


def test_settings_for_daily_use_are_not(tmp_path):
    with Server(tmp_path / "data", "--rate-limits", "on", "--password-hash-cost", "8") as server:
        pass
    assert " WARN " not in server.log_path.read_text()


class Unheard(Server):
    """A server that can write neither its log nor anything else that it has to say."""

    def __init__(self, data_dir, output, *options):
        super().__init__(data_dir, *options)
        self.output = output

    def spawn(self, **environment):
        self.process = subprocess.Popen(
            [binary(), "serve", *self.options],
            env={**own_environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
        )
        return self.process

    def log_tail(self):
        return "nothing of it could be written"


def full_device():
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("output", [full_device, closed_pipe])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, output):
    output = output()
    try:
        # Every request is told.
        with Unheard(tmp_path / "data", output, "--log", "warren=debug") as server:
            alice = Client(server.base_url).register("alice")
            room = alice.create_room()
            for number in range(10):
                alice.send(room, str(number))
            said = bodies(alice.messages(room)["chunk"])
            assert sorted(said) == [str(number) for number in range(10)]
            assert server.stop() == 0
            # A command that fails has its own exit code, whether it can be told why or not.
            missing = ["--data-dir", str(tmp_path / "missing"), "--server-name", server.name]
            failed = subprocess.run([binary(), "user", "list", *missing], stdout=output, stderr=output, timeout=60)
            assert failed.returncode == 1
            server.check()
    finally:
        os.close(output)
