"""The system's hosts file: a name that stands there and nowhere else leads to a server."""

import os

from harness.names import A
from harness.peer import Peer

PUBLIC_ROOMS = "/_matrix/federation/v1/publicRooms"


def with_hosts(path):
    """Starts a command with another hosts file, which nobody else sees: in a mount namespace of its own."""
    # Who is not root is so in a user namespace, where the system permits that.
    own = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    return ["unshare", *own, "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(path)]


def test_a_name_of_the_hosts_file(network, tmp_path):
    peer = Peer("hosted.test", network.authority)
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1\tlocalhost\n# A comment.\n127.0.0.1  another.test  Hosted.test # and one more\n")
    server = network.server(tmp_path)
    server.wrapper = with_hosts(hosts)
    with server:
        # To believe the peer, the server has to find it and fetch its key.
        assert peer.send(server, "GET", PUBLIC_ROOMS)[0] == 200
    assert ("hosted.test", A) not in network.names.asked
    peer.close()
