"""What is on disk: no secret in clear, nothing for other users of the machine, nothing of others destroyed.

The classes of fault: a foreign database destroyed on open; tokens and passwords in logs or readable files.
"""

import os
import stat

import pytest

from harness.client import PASSWORD, Client, unique
from harness.server import Server

SHARED_SECRET = "a-secret-for-tools-that-register"


def contains(folder, text):
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def used(tmp_path):
    """A server that was used and stopped, everything it was told in confidence, and a text that it may keep."""
    secrets = {"password": unique("a password of many words"), "shared secret": SHARED_SECRET}
    server = Server(tmp_path / "data", "--log", "trace")
    server.start({"WARREN_REGISTRATION_SHARED_SECRET": SHARED_SECRET})
    nobody = Client(server.base_url)
    user = nobody.register("careful", password=secrets["password"])
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": secrets["password"],
        "refresh_token": True,
    }
    answer = nobody.post("login", json=body)
    secrets["refresh token"] = answer["refresh_token"]
    again = nobody.post("refresh", json={"refresh_token": answer["refresh_token"]})
    secrets["next refresh token"] = again["refresh_token"]
    for name, token in (("token", user.token), ("old token", answer["access_token"]), ("new token", again["access_token"])):
        secrets[name] = token
    # As some old clients send it.
    nobody.send_raw("GET", f"/_matrix/client/v3/sync?access_token={again['access_token']}&timeout=0")
    room = user.create_room()
    kept = unique("a text that is to be kept")
    user.send(room, kept)
    user.with_password("POST", "account/password", password=secrets["password"], json={"new_password": PASSWORD + "!"})
    secrets["new password"] = PASSWORD + "!"
    assert server.stop() == 0
    return server, secrets, kept, user.user_id, room


def test_secrets_are_neither_on_disk_nor_in_the_log(used):
    server, secrets, kept = used[:3]
    assert contains(server.data_dir, kept), "the search itself works"
    assert "ready" in server.log_path.read_text(errors="replace")
    found = {name: contains(server.data_dir, secret) for name, secret in secrets.items()}
    assert {name: paths for name, paths in found.items() if paths} == {}
    log = server.log_path.read_text(errors="replace")
    assert [name for name, secret in secrets.items() if secret in log] == []


def test_the_data_folder_is_its_users_alone(used):
    server = used[0]
    assert stat.S_IMODE(server.data_dir.stat().st_mode) & 0o077 == 0


def readable_by_others(folder):
    """What another user can read in a folder whose own mode lets everybody in."""
    found = []
    for path in folder.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir() and mode & 0o011:
            found.extend(readable_by_others(path))
        if mode & 0o044:
            found.append(str(path))
    return found


@pytest.mark.parametrize("first", ["serve", "user create"])
def test_a_data_folder_that_is_open_to_all_shows_nothing(tmp_path, first):
    """The folder is the operator's, made before and open; what is in it holds the signing key and tokens in clear."""
    server = Server(tmp_path / "data")
    server.data_dir.mkdir()
    server.data_dir.chmod(0o755)
    umask = os.umask(0o022)
    try:
        if first == "user create":
            server.make_administrator("warden")
            assert readable_by_others(server.data_dir) == []
        with server:
            user = Client(server.base_url).register("careful")
            user.send_raw("POST", "/_matrix/media/v3/upload", data=b"a picture", headers={"Content-Type": "image/png"})
            assert readable_by_others(server.data_dir) == []
            assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o755, "the folder itself is the operator's"
            assert server.stop() == 0
            # As a copy or an older version may have left them; any command that opens the database closes it again.
            for restarted in (server.check, server.start):
                for name in ("store", "media"):
                    (server.data_dir / name).chmod(0o755)
                assert any("/store/" in path for path in readable_by_others(server.data_dir)), "the search itself works"
                restarted()
                assert not any("/store" in path for path in readable_by_others(server.data_dir))
            assert readable_by_others(server.data_dir) == []
    finally:
        os.umask(umask)


def test_another_servers_database_is_left_as_it_is(used, tmp_path):
    server, _, kept, user_id, room = used
    options = ("--server-name", "elsewhere.example", "--listen", server.base_url, "--data-dir", str(server.data_dir))
    before = files(server.data_dir / "store")
    assert before
    done = server.command("serve", *options)
    assert done.returncode != 0
    assert "localhost" in done.stdout + done.stderr and "panicked" not in done.stdout + done.stderr
    assert files(server.data_dir / "store") == before
    server.check()
    with server:
        user = Client(server.base_url, user_id, None).login(password=PASSWORD + "!")
        assert kept in [event["content"].get("body") for event in user.messages(room)["chunk"]]


def test_what_is_no_database_is_left_as_it_is(tmp_path):
    server = Server(tmp_path / "data")
    store = server.data_dir / "store"
    store.mkdir(parents=True)
    for name in ("CURRENT", "MANIFEST-000001", "homeserver.db"):
        (store / name).write_text("somebody else's\n")
    before = files(store)
    done = server.command("serve", *server.options)
    assert done.returncode != 0 and "panicked" not in done.stdout + done.stderr
    assert files(store) == before
