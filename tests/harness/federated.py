"""Homeservers that talk to each other on one machine: Warrens, and real Synapse servers, over TLS under a test's authority.

Each is called `localhost` and its port unless it is given another place, and has a second port, without TLS, for clients.
"""

import dataclasses
import functools
import os
import pathlib
import subprocess

import requests

from harness.client import Client
from harness.gate import Gate
from harness.server import Server, free_port
from harness.waiting import until
from harness.wire import Wire

# Synapse takes five seconds on an idle machine.
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 30

CONFIGURATION = """
server_name: "{name}"
pid_file: "{folder}/homeserver.pid"
report_stats: false
public_baseurl: "http://127.0.0.1:{client_port}/"
listeners:
  - {{port: {client_port}, type: http, bind_addresses: ["127.0.0.1"], resources: [{{names: [client]}}]}}
  - {{port: {port}, type: http, tls: true, bind_addresses: ["{address}"], resources: [{{names: [federation, client]}}]}}
tls_certificate_path: "{certificate}"
tls_private_key_path: "{key}"
federation_custom_ca_list: ["{authority}"]
ip_range_blacklist: []
federation_ip_range_blacklist: []
database: {{name: sqlite3, args: {{database: "{folder}/homeserver.db"}}}}
log_config: "{folder}/log.yaml"
media_store_path: "{folder}/media"
signing_key_path: "{folder}/signing.key"
macaroon_secret_key: secret
form_secret: secret
enable_registration: true
enable_registration_without_verification: true
trusted_key_servers: []
suppress_key_server_warning: true
allow_public_rooms_over_federation: true
room_list_publication_rules: [{{action: allow}}]
bcrypt_rounds: 4
federation: {{destination_min_retry_interval: 1s, destination_max_retry_interval: 2s}}
rc_message: &unlimited {{per_second: 1000000, burst_count: 1000000}}
rc_registration: *unlimited
rc_login: {{address: *unlimited, account: *unlimited, failed_attempts: *unlimited}}
rc_joins: {{local: *unlimited, remote: *unlimited}}
rc_joins_per_room: *unlimited
rc_invites: {{per_room: *unlimited, per_user: *unlimited, per_issuer: *unlimited}}
rc_room_creation: *unlimited
rc_presence: {{per_user: *unlimited}}
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 1, reject_limit: 100000, concurrent: 100}}
"""

LOGGING = """
version: 1
formatters: {{plain: {{format: "%(asctime)s %(levelname)s %(name)s %(message)s"}}}}
handlers: {{file: {{class: logging.FileHandler, filename: "{folder}/homeserver.log", formatter: plain}}}}
root: {{level: INFO, handlers: [file]}}
disable_existing_loggers: false
"""


@dataclasses.dataclass
class Place:
    """What a server is called, where it listens to others, and the names that its certificate is for."""

    name: str
    port: int
    address: str = "127.0.0.1"
    certified: tuple = ("localhost", "127.0.0.1")


def synapse_python():
    """A Python that has the package `matrix-synapse`."""
    python = os.environ.get("SYNAPSE_PYTHON")
    assert python, "SYNAPSE_PYTHON must name a Python that has the package matrix-synapse: `./x test federation` sees to it"
    return python


class Warren(Server):
    """A Warren that others reach."""

    client = Client

    def __init__(self, folder, authority, *options, host="localhost", federation_port=None, reached_at=None, place=None):
        """Called `host` and the port that it is reached at, which is its own unless a wire leads there; or at a place."""
        port = federation_port or free_port()
        place = place or Place(f"{host}:{reached_at or port}", port)
        self.federation_port = place.port
        self.certificate = authority.certificate(*place.certified)
        own = ["--server-name", place.name, "--allow-private-addresses", "on"]
        own += ["--tls-cert", str(self.certificate), "--tls-key", str(self.certificate)]
        own += ["--trusted-ca-files", str(authority.path)]
        port = free_port()
        own += ["--listen", f"http://127.0.0.1:{port}"]
        own += ["--listen", f"https://{place.address}:{place.port}#federation"]
        super().__init__(folder, *own, *options, port=port)
        self.name = place.name


class Between(Warren):
    """A Warren with something on each way between it and others, made for the port that the way leads to: inward first."""

    def __init__(self, folder, authority, others, between):
        port = free_port()
        self.ways = [between(port), *(between(other.federation_port) for other in others)]
        rows = [f"{other.name}=127.0.0.1:{way.port}" for other, way in zip(others, self.ways[1:], strict=True)]
        options = [word for row in rows for word in ("--federation-resolve", row)]
        super().__init__(folder, authority, *options, federation_port=port, reached_at=self.ways[0].port)

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        for way in self.ways:
            way.close()


class Distant(Between):
    """A Warren with a wire between it and all others, which a test can cut."""

    def __init__(self, folder, authority, *others):
        super().__init__(folder, authority, others, Wire)

    def cut_off(self):
        for wire in self.ways:
            wire.cut()

    def reconnect(self):
        for wire in self.ways:
            wire.mend()


class Gated(Between):
    """A Warren with gates between it and another server, one for each direction."""

    def __init__(self, folder, authority, other):
        super().__init__(folder, authority, [other], functools.partial(Gate, authority))
        self.inward, self.outward = self.ways


class LenientClient(Client):
    """A client of another implementation, whose answers are not what is tested."""

    validates = False


class Synapse:
    """The reference homeserver, on SQLite."""

    client = LenientClient

    def __init__(self, folder, authority, python, place=None, settings=""):
        """`settings` are added to its configuration."""
        self.folder, self.python = pathlib.Path(folder), python
        self.folder.mkdir(parents=True)
        port, client_port = free_port(), free_port()
        place = place or Place(f"localhost:{port}", port)
        self.federation_port = place.port
        self.name, self.base_url = place.name, f"http://127.0.0.1:{client_port}"
        text = authority.certificate(*place.certified).read_text()
        at = text.index("-----BEGIN CERTIFICATE-----")
        certificate, key = self.folder / "certificate.pem", self.folder / "key.pem"
        certificate.write_text(text[at:])
        key.write_text(text[:at])
        values = {"name": place.name, "folder": self.folder, "client_port": client_port}
        values |= {"address": place.address, "port": place.port}
        values |= {"certificate": certificate, "key": key, "authority": authority.path}
        self.configuration = self.folder / "homeserver.yaml"
        self.configuration.write_text(CONFIGURATION.format(**values) + settings)
        (self.folder / "log.yaml").write_text(LOGGING.format(**values))
        self.command = [python, "-m", "synapse.app.homeserver", "--config-path", str(self.configuration)]
        subprocess.run([*self.command, "--generate-keys"], check=True, capture_output=True, timeout=START_SECONDS_MAX)
        self.process = None

    def start(self):
        with open(self.folder / "output.log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._is_ready, START_SECONDS_MAX)
        return self

    def _is_ready(self):
        assert self.process.poll() is None, f"Synapse ended at once:\n{self.log_tail()}"
        try:
            return requests.get(self.base_url + "/_matrix/client/versions", timeout=5).ok
        except requests.RequestException:
            return False

    def stop(self, seconds=STOP_SECONDS_MAX):
        self.process.terminate()
        return self.process.wait(seconds)

    def log_tail(self):
        texts = [path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(text[-6000:] for text in texts)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS_MAX)
