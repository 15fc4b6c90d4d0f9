"""What a server tells of itself at `--metrics-listen`, and what the system tells of it."""

import pathlib
import re

import requests

from harness.waiting import until


def told(address, name):
    """The values of a metric, by its labels' values."""
    page = requests.get(f"{address}/metrics", timeout=10).text
    found = re.findall(rf"^{name}{{([^}}]*)}} (\d+)$", page, re.MULTILINE)
    return {tuple(re.findall(r'"([^"]*)"', labels)): int(value) for labels, value in found}


def figure(address, name):
    """A metric that has no labels."""
    page = requests.get(f"{address}/metrics", timeout=10).text
    return int(re.search(rf"^{name} (\d+)$", page, re.MULTILINE)[1])


def until_at_work(address, count):
    """Waits until the server is at so many requests; the question is one, too."""
    until(lambda: figure(address, "warren_requests_in_flight") == count + 1)


def memory_of(server):
    """The most memory that the process has used so far, in bytes."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
