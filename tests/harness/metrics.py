"""What a server tells of itself at `--metrics-listen`, and what the system tells of it."""

import pathlib
import re

import requests

from harness.waiting import until

# What of other servers' input is not taken, by what it is and why.
REFUSALS = "warren_federation_refusals_total"


def told(address, name):
    """The values of a metric, by its labels' values."""
    page = requests.get(f"{address}/metrics", timeout=10).text
    found = re.findall(rf"^{name}{{([^}}]*)}} (\d+)$", page, re.MULTILINE)
    return {tuple(re.findall(r'"([^"]*)"', labels)): int(value) for labels, value in found}


class Counting:
    """How much has been added to a metric since it was last asked, by its labels' values."""

    def __init__(self, address, metric=REFUSALS):
        self.address, self.metric, self.before = address, metric, {}

    def news(self):
        now = told(self.address, self.metric)
        changed = {labels: count - self.before.get(labels, 0) for labels, count in now.items()}
        self.before = now
        return {labels: count for labels, count in changed.items() if count}


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
