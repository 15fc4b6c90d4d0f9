"""The page that Prometheus reads, as `promtool check metrics` wants it."""

import re
import socket

import pytest
import requests

from harness.client import Client
from harness.server import Server, free_port
from harness.waiting import until

# What was never asked has no lines: an idle server's page is small.
IDLE_BYTES_MAX = 20_000
# The parts of a histogram.
PARTS = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture
def metrics():
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def server(tmp_path, metrics):
    with Server(tmp_path / "data", "--metrics-listen", metrics) as server:
        yield server


def page(metrics):
    return requests.get(f"{metrics}/metrics", timeout=10).text


def told(text, word):
    """What the page's comments of one kind say, by the metric's name."""
    return dict(re.findall(rf"^# {word} (\S+) (\S.*)$", text, re.MULTILINE))


def values(text):
    """The metrics without labels."""
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+) (\S+)$", text, re.MULTILINE)}


def test_every_metric_says_what_it_is(server, metrics):
    Client(server.base_url).register("somebody").create_room()
    text = page(metrics)
    kinds, helps = told(text, "TYPE"), told(text, "HELP")
    names = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    histograms = {name for name, kind in kinds.items() if kind == "histogram"}
    families = {PARTS.sub("", name) if PARTS.sub("", name) in histograms else name for name in names}
    assert len(families) > 15
    assert families - kinds.keys() == set() == kinds.keys() - helps.keys()
    # What only grows is a counter, and is called like one.
    assert {name for name, kind in kinds.items() if kind == "counter"} == {name for name in kinds if name.endswith("_total")}


def test_what_the_store_has_written_is_counted(server, metrics):
    user = Client(server.base_url).register("somebody")
    names = [f"warren_engine_{name}_total" for name in ("commits", "bytes_written", "commits_failed")]
    first = page(metrics)
    assert [told(first, "TYPE")[name] for name in names] == ["counter"] * 3
    user.create_room()
    before, after = values(first), values(page(metrics))
    assert all(after[name] > before[name] > 0 for name in names[:2])
    assert after[names[2]] == before[names[2]] == 0


def test_only_what_was_asked_has_times(server, metrics):
    idle = page(metrics)
    assert "warren_request_seconds" not in idle and len(idle) < IDLE_BYTES_MAX
    Client(server.base_url).register("somebody").create_room()
    routes = set(re.findall(r'^warren_request_seconds_count{.*route="([^"]+)"', page(metrics), re.MULTILINE))
    assert routes == {"/metrics", "/_matrix/client/v3/register", "/_matrix/client/v3/createRoom"}


def test_open_connections_are_counted(server, metrics):
    def count():
        return values(page(metrics))["warren_connections_open"]

    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
    # And the one that asks.
    until(lambda: count() == 21)
    for connection in held:
        connection.close()
    until(lambda: count() == 1)
