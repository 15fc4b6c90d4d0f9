"""`./x`: what `run` hands to the server, in the place of what cargo would build, and how tests are counted."""

import os
import pathlib
import subprocess

import pytest

from harness import server as binary
from harness.client import Client
from harness.server import Server

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def stub(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path):
    """Runs `./x run`, with variables, and returns it as it runs; in the place of what cargo builds is `binary`."""

    def started(binary, *arguments, **environment):
        stub(tmp_path / "bin" / "cargo", "exit 0")
        stub(tmp_path / "target" / "release" / "warren", binary)
        bare = {name: value for name, value in os.environ.items() if not name.startswith("WARREN_")}
        own = {"PATH": f"{tmp_path / 'bin'}:{bare['PATH']}", "CARGO_TARGET_DIR": str(tmp_path / "target")}
        command = [str(ROOT / "x"), "run", *arguments]
        return subprocess.Popen(command, env={**bare, **own, **environment}, stdout=subprocess.PIPE, text=True)

    return started


def test_it_says_nothing_that_was_not_asked_for(run):
    """The defaults are the server's own; a variable would win over the operator's file."""
    process = run('echo "$@"; env | grep ^WARREN_', "--log", "warn", WARREN_GUESTS="on")
    said, _ = process.communicate(timeout=20)
    assert said.splitlines() == ["serve --log warn", "WARREN_GUESTS=on"]


def test_a_file_that_a_variable_names_is_followed(run, tmp_path):
    server = Server(tmp_path / "data")
    file = tmp_path / "warren.toml"
    file.write_text(
        f'server_name = "burrow.example"\nlisten = "{server.base_url}"\ndata_dir = "{server.data_dir}"\n'
        'registration = "open"\nrate_limits = "off"\npassword_hash_cost = 1\n'
    )
    server.log_path.touch()
    server.spawn = lambda **environment: start(server, run, WARREN_CONFIG=str(file), **environment)
    with server:
        assert Client(server.base_url).register("somebody").server_name == "burrow.example"


def start(server, run, **environment):
    server.process = run(f'exec {binary.binary()} "$@"', **environment)
    return server.process


@pytest.mark.parametrize(
    "said, counts",
    [
        ("test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 1 filtered out; finished in 0.00s", "7 0 2"),
        ("3 passed, 1 skipped in 0.51s", "3 0 1"),
        ("===== 1 failed, 3 passed, 2 skipped, 1 xfailed, 1 error in 62.10s (0:01:02) =====", "3 2 3"),
        ("ℹ tests 5\nℹ pass 3\nℹ fail 1\nℹ cancelled 0\nℹ skipped 1\nℹ todo 0", "3 1 1"),
    ],
)
def test_what_was_left_out_is_counted(tmp_path, said, counts):
    log = tmp_path / "log"
    log.write_text(f"some words\n{said}\n")
    counted = subprocess.run(
        ["bash", "-c", 'source "$0" help >/dev/null; count_tests "$1"', ROOT / "x", log], capture_output=True, text=True
    )
    assert counted.stdout.split() == counts.split(), counted
