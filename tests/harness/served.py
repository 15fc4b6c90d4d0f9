"""What the binary says it serves of the specification, and how much of it a run of tests has asked for."""

import csv
import pathlib
import subprocess

from harness import specification
from harness.server import binary

# All endpoints of the specification, by the names of its APIs.
SPECIFIED = pathlib.Path(__file__).parent.parent / "spec" / "endpoints.tsv"


def rows():
    """The table of endpoints: of each its method, its path, and all paths that it is served under."""
    table = subprocess.run([binary(), "routes"], capture_output=True, text=True, timeout=30, check=True).stdout
    header, *lines = [line.split("\t") for line in table.splitlines()]
    method, path, served = (header.index(name) for name in ("method", "path", "served_paths"))
    return [(line[method], line[path], line[served].split(" ")) for line in lines]


def missing(api):
    """The endpoints of an API of the specification that are not served: method, path."""
    served = {(method, path) for method, _, paths in rows() for path in paths}
    with SPECIFIED.open(newline="") as table:
        specified = [row for row in csv.DictReader(table, delimiter="\t") if row["api"] == api]
    return [(row["method"], row["path"]) for row in specified if (row["method"], row["path"]) not in served]


def operations(api):
    """The endpoints that are served and that an API of the specification knows: method, path, operation."""
    found = []
    for method, path, _ in rows():
        operation = specification.find(method, path)
        if operation and operation.file.is_relative_to(api):
            found.append((method, path, operation))
    return found


def lacking(api, never_refuse, never_answer=frozenset()):
    """What of an API was never asked rightly, or never wrongly. `never_refuse` can refuse nothing but who asks."""
    served = {operation for _, _, operation in operations(api)}
    good = {operation.id for operation in served if any(status < 400 for status in specification.answered[operation])}
    # 401 alone says nothing: every endpoint can be asked without a token, or a signature.
    refused = {
        operation.id for operation in served if any(400 <= status != 401 for status in specification.answered[operation])
    }
    ids = {operation.id for operation in served}
    found = [f"{id}: never asked rightly" for id in sorted(ids - good - never_answer)]
    return found + [f"{id}: never asked wrongly" for id in sorted(ids - refused - never_refuse)]
