"""What a server tells of itself at `--metrics-listen`."""

import re

import requests


def told(address, name):
    """The values of a metric, by its labels' values."""
    page = requests.get(f"{address}/metrics", timeout=10).text
    found = re.findall(rf"^{name}{{([^}}]*)}} (\d+)$", page, re.MULTILINE)
    return {tuple(re.findall(r'"([^"]*)"', labels)): int(value) for labels, value in found}
