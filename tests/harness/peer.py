"""A server written by hand that talks to the one under test, rightly or wrongly: HTTPS, keys and signatures.

It knows nothing of rooms. What it answers is what a test tells it to; what it was asked is kept.
"""

import base64
import collections.abc
import contextlib
import http.client
import http.server
import json
import re
import socket
import socketserver
import ssl
import threading
import time

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness import specification
from harness.server import key_addresses

# What is wrong, by the specification, with requests that servers under test have made. A test fails for what it adds.
faults = []

DAY_MS = 24 * 60 * 60 * 1000
# No answer of a healthy server takes this long, even if it must ask others first.
SECONDS_MAX = 60
# Nor does one take so long to tell its keys.
KEYS_SECONDS_MAX = 10
# Keys of servers under test, by their names and ids: each is asked for when something comes that is signed with it.
server_keys = {}


def now_ms():
    return int(time.time() * 1000)


def canonical(value):
    """Canonical JSON, as far as these tests need it: no floats. What has no such form is written somehow."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode(errors="surrogatepass")


def base64_of(data):
    return base64.b64encode(data).decode().rstrip("=")


def bytes_of(text):
    return base64.b64decode(text + "=" * (-len(text) % 4))


class Key:
    """A signing key and its id."""

    def __init__(self, version="p1"):
        self.id = f"ed25519:{version}"
        self.private = ed25519.Ed25519PrivateKey.generate()

    @property
    def public(self):
        return base64_of(self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def signature(self, value):
        return base64_of(self.private.sign(canonical(value)))


def signed(value, server_name, key):
    """A JSON object with one more signature."""
    bare = {name: inner for name, inner in value.items() if name not in ("signatures", "unsigned")}
    signatures = {server: dict(keys) for server, keys in value.get("signatures", {}).items()}
    signatures.setdefault(server_name, {})[key.id] = key.signature(bare)
    return {**value, "signatures": signatures}


def verify(value, server_name, key_id, public_key):
    """Raises if the object is not signed by that key."""
    bare = {name: inner for name, inner in value.items() if name not in ("signatures", "unsigned")}
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes_of(public_key))
    key.verify(bytes_of(value["signatures"][server_name][key_id]), canonical(bare))


def authorization(method, target, origin, destination, key, content=None, **parameters):
    """An `Authorization` header. Parameters replace what stands in it, not what is signed; None leaves one out."""
    request = {"method": method, "uri": target, "origin": origin, "destination": destination}
    if content is not None:
        request["content"] = content
    values = {"origin": origin, "destination": destination, "key": key.id, "sig": key.signature(request), **parameters}
    return "X-Matrix " + ",".join(f'{name}="{value}"' for name, value in values.items() if value is not None)


def key_of(server_name, key_id):
    """The key with which a server under test signs, as it publishes it; nothing where it has none that is called so."""
    if (server_name, key_id) not in server_keys and server_name in key_addresses:
        told = requests.get(f"{key_addresses[server_name]}/_matrix/key/v2/server", timeout=KEYS_SECONDS_MAX).json()
        server_keys.update({(server_name, name): bytes_of(key["key"]) for name, key in told.get("verify_keys", {}).items()})
    return server_keys.get((server_name, key_id))


def literal(address):
    """An address as it stands in names and URLs."""
    return f"[{address}]" if ":" in address else address


class Listener:
    """An HTTPS server on a port of its own, or at `address`. `answers` has a function for each path, whose content
    may be a generator of pieces; unknown paths are 404."""

    def __init__(self, certificate, address=("127.0.0.1", 0)):
        self.answers, self.requests = {}, []
        # Whether connections are closed as a request comes on them, or a second one, and the paths of requests that went lost so.
        self.closes_all, self.closes_reused, self.lost = False, False, []
        # Answers of single hosts among those that are served here: host → path → function.
        self.hosts = {}
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.count = getattr(self, "count", 0) + 1
                if listener.closes_all or (listener.closes_reused and self.count > 1):
                    listener.lost.append(self.path)
                    self.close_connection = True
                    return None
                request = Request(self.command, self.path, self.headers, body)
                listener.requests.append(request)
                listener.judge(request)
                status, content, *headers = listener.answer_to(request)
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers[0] if headers else {})}.items():
                    self.send_header(name, value)
                if isinstance(content, collections.abc.Iterator):
                    return self.send_pieces(content)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_header("Content-Length", "1000000" if listener.trickle else str(len(data)))
                self.end_headers()
                while listener.trickle and not listener.closing.wait(0.2):
                    self.wfile.write(b" ")
                self.wfile.write(data)

            def send_pieces(self, pieces):
                """An answer that does not say how long it is, until it ends or nobody takes it any more."""
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                with contextlib.closing(pieces):
                    for piece in pieces:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

            do_GET = do_PUT = do_POST = handle_any

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

            def server_bind(self):
                """Without asking for the name of the address, which nobody knows."""
                socketserver.TCPServer.server_bind(self)
                self.server_name, self.server_port = self.server_address[:2]

            def handle_error(self, *_):
                """A connection that the other side gives up is what some tests are about."""

        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)
        # Whether answers come byte by byte, without end.
        self.trickle, self.closing = False, threading.Event()
        # The names that were asked for in TLS.
        self.names = []
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.http = Server(address, Handler)
        # The handshake is done by the thread of the connection, so that a silent one holds up nobody.
        self.http.socket = self.context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.http.server_port
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def judge(self, request):
        """Takes note of what is wrong with a request."""

    def answer_to(self, request):
        answers = self.hosts.get(request.headers["Host"], self.answers)
        unknown = (404, {"errcode": "M_UNRECOGNIZED", "error": "There is nothing here"})
        return answers.get(request.target.split("?")[0], lambda _: unknown)(request)

    def asked(self, path):
        """The requests for a path so far."""
        return [request for request in self.requests if request.target.split("?")[0] == path]

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body


class Peer(Listener):
    """A server that publishes its keys."""

    def __init__(self, host, authority, name=None, certified=None, **more):
        """Called `host` and its port, unless another name is given; its certificate is for `certified`, or `host`."""
        super().__init__(authority.certificate(certified or host), **more)
        self.name, self.key = name or f"{literal(host)}:{self.port}", Key()
        # Where its requests come from, if not from where all do.
        self.address = None
        # Under which names it is asked beside its own.
        self.also_called = set()
        # What of its published keys is otherwise than usual.
        self.changes = {}
        self.answers["/_matrix/key/v2/server"] = lambda _: (200, self.published())

    def published(self, **changes):
        """What it publishes of its keys; `changes` are made before it is signed."""
        keys = {
            "server_name": self.name,
            "valid_until_ts": now_ms() + DAY_MS,
            "verify_keys": {self.key.id: {"key": self.key.public}},
            "old_verify_keys": {},
        }
        return signed({**keys, **self.changes, **changes}, self.name, self.key)

    def is_called(self, name):
        """Whether requests may be for a server of that name."""
        return name == self.name or name in self.also_called

    def judge(self, request):
        if request.target.startswith(("/_matrix/federation/", "/_matrix/key/", "/_matrix/policy/")):
            body = json.loads(request.body) if request.body else None
            found = specification.request_faults(request.method, request.target, body)
            found += self.signature_faults(request)
            faults.extend(f"{request.method} {request.target} {request.body[:2000]}: {fault}" for fault in found)

    def signature_faults(self, request):
        """What is wrong with how a request is signed, if it must be (server-server API, "Request Authentication")."""
        if not specification.is_signed(request.method, request.target):
            return []
        headers = request.headers.get_all("Authorization", [])
        return [fault for header in headers for fault in self.header_faults(request, header)] if headers else ["unsigned"]

    def header_faults(self, request, header):
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', header))
        if not header.startswith("X-Matrix ") or not {"origin", "destination", "key", "sig"} <= parameters.keys():
            return [f"not the header of a signed request: {header}"]
        origin, destination = parameters["origin"], parameters["destination"]
        signed_part = {"method": request.method, "uri": request.target, "origin": origin, "destination": destination}
        if request.body:
            signed_part["content"] = json.loads(request.body)
        found = [] if self.is_called(destination) else [f"for {destination}, and this is {self.name}"]
        try:
            if (key := key_of(origin, parameters["key"])) is None:
                return [*found, f"{origin} has no key {parameters['key']}"]
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(bytes_of(parameters["sig"]), canonical(signed_part))
        except requests.RequestException:
            # Gone, or stopped, since it asked: nobody can tell.
            return found
        except (InvalidSignature, ValueError):
            return [*found, f"not signed by {origin} with {parameters['key']}"]
        return found

    def connection(self, server):
        """What a request goes out on."""
        source = self.address and (self.address, 0)
        return http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS_MAX, source_address=source)

    def send(self, server, method, target, content=None, **more):
        """A signed request, and its answer as JSON, which is judged. For `more` see `send_raw`."""
        status, _, data = self.send_raw(server, method, target, content, **more)
        answer = json.loads(data)
        found = specification.response_faults(method, target, status, answer)
        assert not found, f"{method} {target} → {status} {answer}\ndoes not fit the specification: {found}"
        return status, answer

    def send_raw(self, server, method, target, content=None, headers=None, body=None, **parameters):
        """A signed request; `headers` (of authorization) and `body` replace what would be sent, `parameters` those of the
        signature. The target is sent as it is, which other clients do not do. Answers with status, headers and body."""
        signing = {"origin": self.name, "destination": server.name, "key": self.key, **parameters}
        if headers is None:
            headers = [authorization(method, target, content=content, **signing)]
        data = body if body is not None else canonical(content) if content is not None else None
        connection = self.connection(server)
        try:
            connection.putrequest(method, target)
            for header in headers:
                connection.putheader("Authorization", header)
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            response = connection.getresponse()
            specification.note_answer(method, target, response.status)
            return response.status, response.headers, response.read()
        finally:
            connection.close()
