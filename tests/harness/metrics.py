"""What a server tells of itself at `--metrics-listen`, and what the system tells of it."""

import pathlib
import re

import requests


def told(address, name):
    """The values of a metric, by its labels' values."""
    page = requests.get(f"{address}/metrics", timeout=10).text
    found = re.findall(rf"^{name}{{([^}}]*)}} (\d+)$", page, re.MULTILINE)
    return {tuple(re.findall(r'"([^"]*)"', labels)): int(value) for labels, value in found}


def memory_of(server):
    """The most memory that the process has used so far, in bytes."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
