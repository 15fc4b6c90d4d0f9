"""What the binary says it serves of the specification, and how much of it a run of tests has asked for."""

import subprocess

from harness import specification
from harness.server import binary


def operations(api):
    """The endpoints that are served and that an API of the specification knows: method, path, operation."""
    table = subprocess.run([binary(), "routes"], capture_output=True, text=True, timeout=30, check=True).stdout
    header, *rows = [line.split("\t") for line in table.splitlines()]
    method, path = header.index("method"), header.index("path")
    found = []
    for row in rows:
        operation = specification.find(row[method], row[path])
        if operation and operation.file.is_relative_to(api):
            found.append((row[method], row[path], operation))
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
