"""What the log says of requests, for people and for machines."""

import json

import requests

from harness.client import Client
from harness.server import Server, free_port


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
