"""Where the server listens, and what it serves there."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import stat

import httpx
import pytest
import requests

from harness.certificates import Authority
from harness.client import Client
from harness.metrics import told
from harness.server import Server, free_port
from harness.waiting import until

VERSIONS = "/_matrix/client/versions"
KEYS = "/_matrix/key/v2/server"
ADMINISTRATION = "/_synapse/admin/v1/federation/destinations"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def status(self, target):
        self.request("GET", target)
        answer = self.getresponse()
        answer.read()
        return answer.status


def listening(pid):
    """The addresses that a process listens on, by its open sockets in the system's tables."""
    own = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            own.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as rows:
            for row in rows.readlines()[1:]:
                fields = row.split()
                # 0A is a socket that listens.
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                    found.append((table, int(fields[1].rsplit(":")[1], 16)))
    return sorted(found)


def test_a_socket_file(tmp_path):
    path = str(tmp_path / "warren.sock")
    with Server(tmp_path / "data", "--listen", f"unix:{path}") as server:
        assert UnixConnection(path).status(VERSIONS) == 200
        assert listening(server.process.pid) == []
        # After a crash the file is still there, which does not hinder the next start.
        server.kill()
        assert os.path.exists(path)
        server.start()
        assert UnixConnection(path).status(VERSIONS) == 200
        assert server.stop() == 0
    assert not os.path.exists(path)


def test_a_proxy_under_another_user_can_connect_to_a_socket_file(tmp_path):
    path = tmp_path / "warren.sock"
    umask = os.umask(0o077)
    try:
        with Server(tmp_path / "data", "--listen", f"unix:{path}"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert stat.S_IMODE((tmp_path / "data").stat().st_mode) & 0o077 == 0
    finally:
        os.umask(umask)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "letter"
    path.write_text("dear friend")
    server = Server(tmp_path / "data", "--listen", f"unix:{path}")
    server.spawn()
    assert server.process.wait(20) != 0
    assert str(path) in server.log_tail()
    assert path.read_text() == "dear friend"


def test_no_address_that_is_not_listed(tmp_path):
    metrics = free_port()
    with Server(tmp_path / "data", "--metrics-listen", f"http://127.0.0.1:{metrics}") as server:
        assert Client(server.base_url).get(VERSIONS)
        assert listening(server.process.pid) == sorted([("tcp", server.port), ("tcp", metrics)])


@pytest.mark.parametrize("listed", [["[::]"], ["0.0.0.0"], ["0.0.0.0", "[::]"]])
def test_all_addresses_of_one_family_are_not_those_of_the_other(tmp_path, listed):
    port = free_port()
    options = [word for address in listed for word in ("--listen", f"http://{address}:{port}")]
    with Server(tmp_path / "data", *options, port=port) as server:
        # Elsewhere "[::]" means both, so it is told where it stands alone.
        assert ("nothing of IPv4" in server.log()) == (listed == ["[::]"])
        for host, listener in [("127.0.0.1", "0.0.0.0"), ("[::1]", "[::]")]:
            if listener in listed:
                assert requests.get(f"http://{host}:{port}{VERSIONS}", timeout=10).status_code == 200
            else:
                with pytest.raises(requests.ConnectionError):
                    requests.get(f"http://{host}:{port}{VERSIONS}", timeout=10)


def test_many_clients_may_come_at_once(tmp_path):
    """The server is held up while they come: what the system has not accepted for it by then would have to try again."""
    with open("/proc/sys/net/core/somaxconn") as limit:
        wanted = min(300, int(limit.read()))
    with Server(tmp_path / "data") as server, contextlib.ExitStack() as stack:
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(wanted):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        finally:
            server.process.send_signal(signal.SIGCONT)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_metrics_are_served_at_their_own_address_alone(tmp_path):
    metrics = f"http://127.0.0.1:{free_port()}"
    with Server(tmp_path / "data", "--metrics-listen", metrics) as server:
        Client(server.base_url).register("somebody").create_room()
        text = requests.get(f"{metrics}/metrics", timeout=10).text
        made = 'warren_request_seconds_count{method="POST",route="/_matrix/client/v3/createRoom"} 1'
        assert made in text.splitlines()
        assert requests.get(f"{server.base_url}/metrics", timeout=10).status_code == 404
        assert requests.get(f"{metrics}{VERSIONS}", timeout=10).status_code == 404


def test_rows_name_the_apis_that_they_serve(tmp_path):
    client, federation, admin = (free_port() for _ in range(3))
    rows = [(client, "client"), (federation, "federation"), (admin, "client+admin")]
    options = [word for port, apis in rows for word in ("--listen", f"http://127.0.0.1:{port}#{apis}")]
    with Server(tmp_path / "data", *options, port=client):

        def served(port):
            asked = [requests.get(f"http://127.0.0.1:{port}{path}", timeout=10) for path in (VERSIONS, KEYS, ADMINISTRATION)]
            for answer in asked:
                if answer.status_code == 404:
                    assert answer.json()["errcode"] == "M_UNRECOGNIZED"
            return [answer.status_code for answer in asked]

        assert served(client) == [200, 404, 404]
        assert served(federation) == [404, 200, 404]
        # It is there, but not for everybody.
        assert served(admin) == [200, 404, 401]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def test_tls_in_both_versions_of_http(tmp_path, authority):
    certificate = str(authority.certificate("localhost", "127.0.0.1"))
    port = free_port()
    options = ["--listen", f"https://127.0.0.1:{port}", "--tls-cert", certificate, "--tls-key", certificate]
    with Server(tmp_path / "data", *options, port=port):
        trusted = ssl.create_default_context(cafile=str(authority.path))
        for is_new, version in [(False, "HTTP/1.1"), (True, "HTTP/2")]:
            with httpx.Client(verify=trusted, http1=not is_new, http2=is_new) as client:
                answer = client.get(f"https://localhost:{port}{VERSIONS}")
                assert (answer.status_code, answer.http_version) == (200, version)
                assert answer.json()["versions"]


def test_handshakes_that_come_to_nothing_are_counted(tmp_path, authority):
    certificate, port = str(authority.certificate("localhost")), free_port()
    address = f"http://127.0.0.1:{free_port()}"
    options = ["--listen", f"https://127.0.0.1:{port}", "--tls-cert", certificate, "--tls-key", certificate]
    failed = lambda: told(address, "warren_handshakes_failed_total")
    with Server(tmp_path / "data", *options, "--metrics-listen", address, port=port):
        with socket.create_connection(("127.0.0.1", port)):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                until(lambda: failed() == {("failed",): 1})
            # The other one says nothing.
            until(lambda: failed() == {("failed",): 1, ("too_slow",): 1})


def test_tls_without_a_certificate_is_refused(tmp_path):
    server = Server(tmp_path / "data", "--listen", f"https://127.0.0.1:{free_port()}")
    server.spawn()
    assert server.process.wait(20) != 0
    assert "tls_cert" in server.log_tail()


def test_everybody_is_sent_to_a_listener_that_serves_clients(tmp_path):
    federation, client = free_port(), free_port()
    rows = [f"http://127.0.0.1:{federation}#federation", f"http://127.0.0.1:{client}#client"]
    options = ["--listen", rows[0], "--listen", rows[1], "--registration", "token"]
    with Server(tmp_path / "data", *options, port=client) as server:
        there = f"http://127.0.0.1:{client}"
        for port in (federation, client):
            file = requests.get(f"http://127.0.0.1:{port}/.well-known/matrix/client", timeout=10).json()
            assert file["m.homeserver"]["base_url"].rstrip("/") == there
        assert there in requests.get(there, timeout=10).text
        assert f"open {there} in a browser" in server.log_tail()


def test_servers_side_by_side(tmp_path):
    with Server(tmp_path / "one") as one, Server(tmp_path / "two") as two:
        users = [Client(server.base_url).register("same") for server in (one, two)]
        assert [user.server_name for user in users] == [one.name, two.name]


def test_the_well_known_files_say_what_is_configured(tmp_path):
    options = ["--server-name", "warren.example", "--public-base-url", "https://matrix.warren.example/"]
    with Server(tmp_path / "data", *options, "--well-known-server", "fed.warren.example:443") as server:
        nobody = Client(server.base_url)
        client = nobody.get("/.well-known/matrix/client")
        assert client["m.homeserver"]["base_url"].rstrip("/") == "https://matrix.warren.example"
        assert nobody.get("/.well-known/matrix/server") == {"m.server": "fed.warren.example:443"}
        assert nobody.register("somebody").server_name == "warren.example"


def test_clients_may_be_sent_elsewhere(tmp_path):
    options = ["--public-base-url", "https://matrix.warren.example", "--well-known-client", "https://chat.warren.example/"]
    with Server(tmp_path / "data", *options) as server:
        client = Client(server.base_url).get("/.well-known/matrix/client")
        assert client["m.homeserver"]["base_url"].rstrip("/") == "https://chat.warren.example"
        # What is said to people is where this server is.
        assert "https://matrix.warren.example" in requests.get(server.base_url, timeout=10).text
