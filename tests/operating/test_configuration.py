"""The configuration as operators give it: a file, variables, flags; and how a mistake is told."""

import os
import subprocess
import tomllib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness import server as binary
from harness.certificates import Authority
from harness.client import Client
from harness.server import Server, free_port


def refused(*arguments, **environment):
    """What the server says that does not start."""
    done = subprocess.run(
        [binary.binary(), *arguments], capture_output=True, text=True, timeout=20, env={**os.environ, **environment}
    )
    assert done.returncode not in (0, None), done.stdout
    assert "panicked" not in done.stderr
    return done.stderr


def written(tmp_path, text):
    path = tmp_path / "warren.toml"
    path.write_text(text)
    return str(path)


def test_an_unknown_option_is_refused_with_its_line_and_the_nearest_name(tmp_path):
    file = written(tmp_path, 'server_name = "a.example"\n\nregistraton = "open"\n')
    said = refused("serve", "--config", file)
    assert f"{file}, line 3" in said and "registraton" in said and "did you mean registration?" in said


def test_no_database_is_made_for_what_is_no_server_name(tmp_path):
    said = refused("serve", "--server-name", "a.example:+80", "--data-dir", str(tmp_path / "data"))
    assert "server name" in said.replace("_", " ")
    assert not list(tmp_path.glob("data/store/*"))


@pytest.mark.parametrize(
    "line",
    [
        'guests = "maybe"',
        "guests = 3",
        'registration = "everyone"',
        'durability = "none"',
        "memory_budget_mib = 1",
        'memory_budget_mib = "much"',
        'listen = ["ftp://127.0.0.1:1"]',
        'listen = ["http://127.0.0.1"]',
        'default_room_version = "99"',
        'server_name = "not a name"',
        'public_base_url = "matrix"',
        'trusted_proxies = ["everybody"]',
        'log = "infoo"',
        'federation_deny = ["https://evil.example"]',
        'federation_allow = ["friend.example:8448"]',
        'never_trust_keys = ["ed25519:a b"]',
        'old_signing_keys = ["ed25519:a AAAA 5"]',
        'federation_resolve = ["friend.example=192.0.2.1:0"]',
        'listen = ["http://127.0.0.1:8008#client", "http://127.0.0.1:8008#federation"]',
    ],
)
def test_a_wrong_value_is_refused_with_its_line(tmp_path, line):
    option = line.split(" ")[0]
    text = f"# One line before.\n{line}\n"
    text += '' if option == "server_name" else 'server_name = "a.example"\n'
    said = refused("serve", "--config", written(tmp_path, text), "--data-dir", str(tmp_path / "data"))
    assert "line 2" in said and option in said, said
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_no_toml_is_refused_with_its_line(tmp_path):
    assert "line 2" in refused("serve", "--config", written(tmp_path, 'log = "info"\nguests = = on\n'))


def test_a_file_that_is_no_text_is_refused_with_its_line(tmp_path):
    path = tmp_path / "warren.toml"
    path.write_bytes(b'guests = "on"\n# B\xfccher\n')
    said = refused("serve", "--config", str(path))
    assert f"{path}, line 2" in said and "UTF-8" in said, said


def test_a_misspelt_level_is_refused_with_the_nearest_right_one(tmp_path):
    said = refused("serve", "--log", "infoo", "--data-dir", str(tmp_path / "data"))
    assert "flag --log" in said and "did you mean info?" in said, said


@pytest.mark.parametrize("option", ["data-dir", "server-name"])
def test_an_empty_text_is_told_to_be_empty(option):
    assert f"flag --{option}: {option.replace('-', '_')} must not be empty" in refused("serve", f"--{option}", "")


def test_a_file_that_is_not_there_is_named(tmp_path):
    missing = str(tmp_path / "nowhere.toml")
    assert missing in refused("serve", "--config", missing)


@pytest.mark.parametrize("option", ["trusted_ca_files", "appservice_files", "tls_cert", "tls_key"])
def test_a_file_that_cannot_be_read_is_refused_with_its_line(tmp_path, option):
    certificate, missing = Authority(tmp_path).certificate("a.example"), tmp_path / "nowhere"
    files = {"tls_cert": certificate, "tls_key": certificate, option: missing}
    lines = [f'{name} = "{path}"' for name, path in files.items()]
    file = written(tmp_path, "\n".join(lines) + "\n")
    said = refused("serve", "--config", file, "--data-dir", str(tmp_path / "data"))
    place = f"{file}, line {list(files).index(option) + 1}: {option}"
    assert place in said and str(missing) in said, said
    assert not (tmp_path / "data" / "store").exists()


@pytest.mark.parametrize("option", ["trusted_ca_files", "tls_cert", "tls_key"])
def test_a_file_that_is_something_else_is_refused_with_its_line(tmp_path, option):
    other = tmp_path / "letter"
    other.write_text("Dear friend")
    certificate = Authority(tmp_path).certificate("a.example")
    files = {"tls_cert": certificate, "tls_key": certificate, option: other}
    file = written(tmp_path, "".join(f'{name} = "{path}"\n' for name, path in files.items()))
    said = refused("serve", "--config", file, "--data-dir", str(tmp_path / "data"))
    assert f"{file}, line {list(files).index(option) + 1}: {option}" in said and str(other) in said, said


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_an_encrypted_key_is_called_so(tmp_path, form):
    certificate, key = Authority(tmp_path).certificate("a.example"), tmp_path / "key.pem"
    encryption = serialization.BestAvailableEncryption(b"speak, friend")
    form = serialization.PrivateFormat[form]
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, form, encryption)
    )
    options = ["--listen", "https://127.0.0.1:0", "--tls-cert", str(certificate), "--tls-key", str(key)]
    said = refused("serve", "--data-dir", str(tmp_path / "data"), *options)
    assert "tls_key" in said and "encrypted" in said and f"openssl pkey -in {key} -out" in said, said


def test_a_variable_that_is_no_text_is_refused():
    no_text = os.fsdecode(b"a\xff.example")
    said = refused("serve", WARREN_SERVER_NAME=no_text)
    assert "environment variable WARREN_SERVER_NAME" in said and "UTF-8" in said, said


def test_an_unknown_variable_and_an_unknown_flag():
    assert "WARREN_SERVER_NAME" in refused("serve", WARREN_SERVER_NAM="a.example")
    assert "--server-name" in refused("serve", "--server-nam", "a.example")


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(tmp_path):
    file = written(tmp_path, 'default_room_version = "9"\nregistration = "closed"\nguests = "off"\n')
    server = Server(tmp_path / "data", "--config", file, "--registration", "open", "--guests", "on")
    server.start({"WARREN_DEFAULT_ROOM_VERSION": "10", "WARREN_REGISTRATION": "token"})
    try:
        user = Client(server.base_url).register("somebody")
        assert user.get("capabilities")["capabilities"]["m.room_versions"]["default"] == "10"
        room = user.create_room()
        assert user.state(room, "m.room.create")["room_version"] == "10"
    finally:
        server.stop()


def test_a_list_is_repeated_flags_or_a_variable_with_commas(tmp_path):
    first, second = free_port(), free_port()
    rows = [f"http://127.0.0.1:{port}" for port in (first, second)]
    repeated = Server(tmp_path / "flags", "--listen", rows[0], "--listen", rows[1], port=first)
    with repeated:
        assert all(Client(row).get("/_matrix/client/versions") for row in rows)
    by_variable = Server(tmp_path / "variable", port=first)
    at = by_variable.options.index("--listen")
    del by_variable.options[at : at + 2]
    by_variable.start({"WARREN_LISTEN": ",".join(rows)})
    try:
        assert all(Client(row).get("/_matrix/client/versions") for row in rows)
    finally:
        by_variable.stop()


def test_the_documented_example_has_every_option_and_can_be_used(tmp_path):
    example = subprocess.run([binary.binary(), "config"], capture_output=True, text=True, timeout=10).stdout
    options = tomllib.loads(example)
    for name in ["server_name", "tls_key", "appservice_files", "memory_budget_mib", "durability", "metrics_listen"]:
        assert name in options
    with Server(tmp_path / "data", "--config", written(tmp_path, example)) as server:
        assert Client(server.base_url).register("somebody").create_room()


def test_secrets_are_shown_nowhere(tmp_path):
    secret = "a-secret-that-is-not-to-be-seen"
    file = written(tmp_path, f'registration_shared_secret = "{secret}"\nlog = "trace"\n')
    with Server(tmp_path / "data", "--config", file) as server:
        assert Client(server.base_url).register("somebody")
    assert secret not in server.log_path.read_text()
