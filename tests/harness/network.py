"""A small internet for tests: an authority, a domain name system, a host with well-known files, and peers.

Names end in `.test`. A name that nobody has said anything about does not exist.
"""

import itertools

from harness.certificates import Authority
from harness.names import Names
from harness.peer import Listener, Peer
from harness.server import Server

# Hosts with a well-known file, which the server under test must be told of before it starts: port 443 is not a test's.
HOSTS = 80


class Network:
    def __init__(self, folder):
        self.authority = Authority(folder)
        self.names = Names()
        self.files = Listener(self.authority.certificate("*.file.test", "default.test"))
        self.peers = []
        self._peers, self._hosts = itertools.count(), itertools.count(1)
        # Peers that servers under test have to be told of when they start.
        self.notary = self.peer("notary.test")
        self.default_port = self.peer("default.test", name="default.test")

    @property
    def options(self):
        """What makes a server live in this internet."""
        rows = [f"host{number}.file.test:443=127.0.0.1:{self.files.port}" for number in range(HOSTS)]
        rows.append(f"default.test:443=127.0.0.1:{self.files.port}")
        rows.append(f"default.test:8448=127.0.0.1:{self.default_port.port}")
        given = [("--trusted-ca-files", str(self.authority.path)), ("--dns-servers", self.names.address)]
        given += [("--federation-resolve", row) for row in rows]
        return [word for pair in given for word in pair]

    def server(self, folder, *options):
        """A server under test that lives here, which takes it that addresses of this machine are no secret."""
        return Server(folder / "data", "--allow-private-addresses", "on", *self.options, *options)

    def peer(self, host=None, kind=Peer, **more):
        """A peer at a name of its own that is resolved to this machine."""
        host = host or f"peer{next(self._peers)}.test"
        peer = kind(host, self.authority, **more)
        self.names.addresses[host] = ["127.0.0.1"]
        self.peers.append(peer)
        return peer

    def behind_file(self, content, host=None, **more):
        """A peer that is called like a host with a well-known file; `content` is made from the peer: the file, or status,
        content and headers. Its certificate is for `host`, or for its name."""
        name = f"host{next(self._hosts)}.file.test"
        peer = Peer(host or name, self.authority, name=name, **more)
        self.peers.append(peer)

        def answer(request):
            found = content(peer)
            return found if isinstance(found, tuple) else (200, found)

        self.files_of(name)["/.well-known/matrix/server"] = answer
        return peer

    def files_of(self, host):
        """The files of one host: path → answer."""
        return self.files.hosts.setdefault(host, {})

    def close(self):
        for listener in (*self.peers, self.files, self.names):
            listener.close()
