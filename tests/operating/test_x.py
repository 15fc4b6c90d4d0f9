"""`./x`: what `run` hands to the server, in the place of what cargo would build, and how tests are counted."""

import os
import pathlib
import shutil
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


INSTALL = "apt-get install --yes --no-install-recommends "
# What `sudo` is for who may use it without a password, and for who has to give one.
FREE_SUDO, OTHER_SUDO = '[ "$1" != -n ] || shift; exec /usr/bin/env "$@"', "exit 1"


@pytest.fixture
def bare(tmp_path):
    """Runs `./x run` where there are no tools but those given, each as the script that is in its place. Returns how it ended, and
    what `apt-get` was told if it was there."""

    def ended(**tools):
        told = tmp_path / "told"
        told.touch()
        (tmp_path / "bin").mkdir()
        for name in ("bash", "dirname", "true"):
            (tmp_path / "bin" / name).symlink_to(shutil.which(name))
        for name, text in {"apt_get": f'echo "$@" >>{told}', "id": "echo 1000", "cargo": "exit 0", **tools}.items():
            if text is not None:
                stub(tmp_path / "bin" / name.replace("_", "-"), text)
        stub(tmp_path / "target" / "release" / "warren", 'echo "$@"')
        own = {"PATH": str(tmp_path / "bin"), "CARGO_TARGET_DIR": str(tmp_path / "target"), "LIBCLANG_PATH": "/"}
        done = subprocess.run([ROOT / "x", "run"], env=own, capture_output=True, text=True, timeout=20)
        return done, told.read_text().splitlines()

    return ended


def packages(command):
    """The packages that a command installs; whether the machine has certificates is its own business."""
    _, _, names = command.partition(INSTALL)
    return set(names.split()) - {"ca-certificates"}


LACKING = {"clang", "g++", "make", "ccache"}


@pytest.mark.parametrize("tools", [{"id": "echo 0"}, {"id": "echo 0", "sudo": OTHER_SUDO}, {"sudo": FREE_SUDO}])
def test_what_is_missing_is_installed_where_that_is_permitted(bare, tools):
    done, told = bare(**tools)
    assert (done.returncode, done.stdout) == (0, "serve\n"), done
    assert told[0].split() == ["update", "--quiet"] and packages(f"apt-get {told[1]}") == LACKING, told


@pytest.mark.parametrize(
    "tools, before", [({"sudo": OTHER_SUDO}, "  sudo apt-get update && sudo "), ({}, "  apt-get update && ")]
)
def test_else_the_command_is_printed_that_installs_it(bare, tools, before):
    done, told = bare(**tools)
    assert done.returncode != 0 and (done.stdout, told) == ("", []), done
    reason, command = done.stderr.splitlines()
    assert command.startswith(before + INSTALL) and packages(command) == LACKING, command
    assert ("as root" in reason) == ("sudo" not in tools), reason


def test_where_packages_are_installed_otherwise_they_are_named(bare):
    done, _ = bare(apt_get=None, id="echo 0")
    _, names = done.stderr.splitlines()
    assert done.returncode != 0 and done.stdout == "" and set(names.split()) == LACKING, done


def test_a_missing_cargo_comes_with_the_command_that_installs_it(bare):
    tools = dict.fromkeys(["clang", "g++", "make", "ccache", "curl"], "exit 0")
    done, _ = bare(id="echo 0", cargo=None, **tools)
    assert done.returncode != 0 and done.stdout == "", done
    assert "https://sh.rustup.rs" in done.stderr and ". ~/.cargo/env" in done.stderr


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
