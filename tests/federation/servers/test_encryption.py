"""Users of different servers chat encrypted, with an unmodified client: keys are found, claimed and shared across
servers, files are shared, edits, reactions, threads and receipts come. `clients/js/chat.test.mjs` has the steps.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

CLIENT = pathlib.Path(__file__).parents[2] / "clients" / "js"
SECONDS_MAX = 180


@pytest.mark.parametrize("first", ["ours first", "theirs first"])
def test_an_encrypted_chat(here, there, first):
    has_client = shutil.which("node") and (CLIENT / "node_modules").exists()
    assert has_client, "Node and the packages of clients/js are needed: `./x test federation` sees to them"
    servers = [here, there] if first == "ours first" else [there, here]
    addresses = {"HOMESERVER_URL": servers[0].base_url, "OTHER_HOMESERVER_URL": servers[1].base_url}
    command = ["node", "--test", "--test-force-exit", "--test-reporter=spec", "chat.test.mjs"]
    done = subprocess.run(
        command, cwd=CLIENT, env={**os.environ, **addresses}, capture_output=True, text=True, timeout=SECONDS_MAX
    )
    assert done.returncode == 0, done.stdout[:6000] + done.stderr[-2000:]
