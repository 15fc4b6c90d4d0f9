"""The commands of the binary, on the data of a server that is stopped."""

import csv
import io
import subprocess

import pytest

from harness import server as binary
from harness.client import Client
from harness.server import Server, free_port


@pytest.fixture
def stopped(tmp_path):
    with Server(tmp_path / "data", "--registration", "closed") as server:
        assert server.stop() == 0
        yield server


def run(server, *arguments, stdin="", code=0):
    options = ["--data-dir", str(server.data_dir), "--server-name", server.name, "--password-hash-cost", "1"]
    done = subprocess.run(
        [binary.binary(), *arguments, *options], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def log_in(server, name, password, **more):
    identifier = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": identifier, "password": password}
    return Client(server.base_url).post("login", json=body, **more)


def accounts(server):
    return {row["user_id"]: row["kind"] for row in csv.DictReader(io.StringIO(run(server, "user", "list")), delimiter="\t")}


def test_accounts_from_their_making_to_their_end(stopped):
    made = run(stopped, "user", "create", "bilbo")
    password = made.split("password: ")[1].strip()
    run(stopped, "user", "create", "frodo", "--admin", "--password-stdin", stdin="second breakfast\n")
    bilbo, frodo = (f"@{name}:{stopped.name}" for name in ("bilbo", "frodo"))
    assert accounts(stopped) == {bilbo: "user", frodo: "admin"}
    assert "taken" in run(stopped, "user", "create", "bilbo", code=1)

    stopped.start()
    client = Client(stopped.base_url)
    hobbit = client.signed_in(log_in(stopped, "bilbo", password))
    room = hobbit.create_room(preset="public_chat")
    elder = client.signed_in(log_in(stopped, frodo, "second breakfast"))
    elder.join(room)
    assert stopped.stop() == 0

    run(stopped, "user", "reset-password", "bilbo", "--password-stdin", stdin="eleventy-one\n")
    stopped.start()
    elder.http.close()
    hobbit.http.close()
    hobbit.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    log_in(stopped, "bilbo", password, status=403, errcode="M_FORBIDDEN")
    assert log_in(stopped, "bilbo", "eleventy-one")["user_id"] == bilbo
    assert stopped.stop() == 0

    run(stopped, "user", "deactivate", bilbo)
    assert accounts(stopped) == {bilbo: "deactivated", frodo: "admin"}
    stopped.start()
    elder.http.close()
    log_in(stopped, "bilbo", "eleventy-one", status=403)
    assert set(elder.get("rooms/{roomId}/joined_members", room)["joined"]) == {frodo}
    assert stopped.stop() == 0
    stopped.check()


def test_an_account_becomes_an_administrator_and_an_ordinary_one_again(stopped):
    password = run(stopped, "user", "create", "bilbo").split("password: ")[1].strip()
    bilbo = f"@bilbo:{stopped.name}"
    path = "/_synapse/admin/v1/federation/destinations"
    client = None
    # With the access token of before.
    for arguments, kind, status in (([], "user", 403), (["bilbo"], "admin", 200), ([bilbo, "--no"], "user", 403)):
        if arguments:
            assert bilbo in run(stopped, "user", "set-admin", *arguments)
        assert accounts(stopped) == {bilbo: kind}
        with stopped:
            client = client or Client(stopped.base_url).signed_in(log_in(stopped, "bilbo", password))
            client.http.close()
            assert client.send_raw("GET", path).status_code == status


def test_nobody_administers_by_an_account_that_nobody_can_use(stopped):
    run(stopped, "user", "create", "bilbo")
    run(stopped, "user", "deactivate", "bilbo")
    assert "closed" in run(stopped, "user", "set-admin", "bilbo", code=1)
    assert accounts(stopped) == {f"@bilbo:{stopped.name}": "deactivated"}


def test_an_account_that_is_not_there(stopped):
    for command in ("reset-password", "deactivate", "set-admin"):
        assert "@nobody:" in run(stopped, "user", command, "nobody", code=1)


@pytest.mark.parametrize("name", ["Bilbo Baggins", "@bilbo:elsewhere.example", "", "a" * 250])
def test_a_name_that_nobody_can_have(stopped, name):
    assert run(stopped, "user", "create", name, code=1).startswith("warren: ")
    assert accounts(stopped) == {}


def test_a_running_server_is_not_disturbed(tmp_path):
    with Server(tmp_path / "data") as server:
        for arguments in (["user", "list"], ["user", "create", "x"], ["user", "set-admin", "x"], ["key", "rotate"]):
            assert str(server.data_dir) in run(server, *arguments, code=1)
        assert str(server.data_dir) in run(server, "check", code=2)
        assert Client(server.base_url).register("somebody")


@pytest.mark.parametrize(
    "arguments",
    [
        ["user", "list"],
        ["user", "reset-password", "bilbo"],
        ["user", "deactivate", "bilbo"],
        ["user", "set-admin", "bilbo"],
        ["room", "purge", "!burrow:localhost"],
        ["room", "purge-history", "!burrow:localhost", "--before", "0"],
        ["key", "rotate"],
        ["check"],
    ],
    ids=" ".join,
)
def test_where_there_is_no_database_none_is_made(tmp_path, arguments):
    """As where data_dir is misspelt: only the server and who makes its first account begin a database."""
    server = Server(tmp_path / "dta")
    code = 2 if arguments == ["check"] else 1
    assert f"there is no database in {server.data_dir}" in run(server, *arguments, code=code)
    assert not server.data_dir.exists()
    (server.data_dir / "store").mkdir(parents=True)
    assert f"there is no database in {server.data_dir}" in run(server, *arguments, code=code)
    assert [path.name for path in server.data_dir.rglob("*")] == ["store"]


def test_an_account_may_be_made_before_the_first_start(tmp_path):
    server = Server(tmp_path / "data")
    password = run(server, "user", "create", "bilbo").split("password: ")[1].strip()
    with server:
        assert log_in(server, "bilbo", password)["user_id"] == f"@bilbo:{server.name}"


def test_a_running_server_can_be_asked_by_a_socket_file(tmp_path):
    port, path, token = free_port(), tmp_path / "warren.sock", tmp_path / "token"
    options = ["--listen", f"http://127.0.0.1:{port}#client", "--listen", f"unix:{path}#admin"]
    with Server(tmp_path / "data", *options, port=port) as server:
        user = Client(server.base_url).register("somebody")
        room = user.create_room()

        def resynchronise(text):
            token.write_text(text)
            done = server.command("room", "resync", room, "--token-file", str(token), *server.options)
            assert done.returncode == 1, done.stdout
            return done.stderr

        # That is what the server says, which has to be asked for it.
        assert "administrators" in resynchronise(user.token + "\n")
        said = resynchronise(f"token: {user.token}")
        assert str(token) in said and user.token not in said


def test_without_a_listener_for_it_is_told_what_to_add(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret")
    options = ["--listen", f"http://127.0.0.1:{free_port()}#client"]
    server = Server(tmp_path / "data", *options)
    done = server.command("room", "resync", "!burrow:localhost", "--token-file", str(token), *server.options)
    assert done.returncode == 1 and 'add "http://127.0.0.1:8009#admin" to listen' in done.stderr, done.stderr


def test_the_table_of_endpoints():
    table = subprocess.run([binary.binary(), "routes"], capture_output=True, text=True, timeout=10).stdout
    rows = list(csv.DictReader(io.StringIO(table), delimiter="\t"))
    sync = next(row for row in rows if row["path"] == "/_matrix/client/v3/sync")
    assert sync["method"] == "GET" and "/_matrix/client/r0/sync" in sync["served_paths"]
    assert len({(row["method"], row["path"]) for row in rows}) == len(rows) > 150


@pytest.mark.parametrize("command", ["serve", "user", "room", "key", "check", "routes", "config"])
def test_every_command_explains_itself(command):
    shown = subprocess.run([binary.binary(), command, "--help"], capture_output=True, text=True, timeout=10)
    assert shown.returncode == 0 and f" {command} [OPTIONS]" in shown.stdout
    overview = subprocess.run([binary.binary(), "--help"], capture_output=True, text=True, timeout=10).stdout
    assert f"\n  {command} " in overview
