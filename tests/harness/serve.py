"""`python -m harness.serve -- COMMAND…`: runs a command against a fresh server, whose address is in `HOMESERVER_URL`.

A `HOMESERVER_URL` that is already set is used instead of a server of our own.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from harness.server import Server


def main():
    command = sys.argv[sys.argv.index("--") + 1 :]
    if "HOMESERVER_URL" in os.environ:
        return subprocess.call(command)
    with tempfile.TemporaryDirectory() as folder, Server(pathlib.Path(folder) / "data") as server:
        code = subprocess.call(command, env={**os.environ, "HOMESERVER_URL": server.base_url})
        if code:
            print(f"The end of the server's log:\n{server.log_tail()}", file=sys.stderr)
        return code


if __name__ == "__main__":
    sys.exit(main())
