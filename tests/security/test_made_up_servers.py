"""Names of servers cost nothing, and whoever has a domain answers for all of them: they leave nothing behind here.

The class of fault: what this server keeps for each server that it is made to ask, be it an open connection or a row on the disk.
"""

import os
import resource

import pytest
import requests

from harness.client import Client
from harness.peer import DAY_MS, Peer, now_ms, signed
from harness.server import sound
from harness.waiting import until

KEYS = "/_matrix/key/v2/server"
LIST = "/_matrix/federation/v1/publicRooms"
PROFILE = "/_matrix/federation/v1/query/profile"
QUERY = "/_matrix/key/v2/query"
# As many as one query has asked about.
IN_ONE_QUERY = 20
NAMES = 5 * IN_ONE_QUERY
# What else the server may come to open meanwhile.
SPARE = 20
SECONDS_MAX = 20
# With fewer, connections are kept for a moment alone, whoever they are to.
FILES_MIN = 16_960


class Everybody(Peer):
    """Answers under any name, each with keys of its own."""

    def is_called(self, name):
        return name.endswith(f".everybody.test:{self.port}")

    def answer_to(self, request):
        if request.target.startswith(KEYS):
            keys = {
                "server_name": request.headers["Host"],
                "valid_until_ts": now_ms() + DAY_MS,
                "verify_keys": {self.key.id: {"key": self.key.public}},
                "old_verify_keys": {},
            }
            return 200, signed(keys, request.headers["Host"], self.key)
        if request.target.startswith(PROFILE):
            return 200, {"displayname": "Bee"}
        return super().answer_to(request)

    def made_up(self, network, count):
        hosts = [f"n{number}.everybody.test" for number in range(count)]
        network.names.addresses.update({host: ["127.0.0.1"] for host in hosts})
        return [f"{host}:{self.port}" for host in hosts]


@pytest.fixture
def everybody(network):
    return network.peer("everybody.test", kind=Everybody, certified="*.everybody.test")


def query(server, names):
    body = {"server_keys": {name: {} for name in names}}
    response = requests.post(server.base_url + QUERY, json=body, timeout=60)
    assert response.status_code == 200, response.text
    return [keys["server_name"] for keys in response.json()["server_keys"]]


def files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_no_connection_to_them_stays_open(network, tmp_path, everybody):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert most == resource.RLIM_INFINITY or most >= FILES_MIN, f"only {most} open files are allowed (ulimit -Hn)"
    with sound(network.server(tmp_path)) as server:
        alice = Client(server.base_url).register("alice")
        names = everybody.made_up(network, NAMES)
        assert alice.get("profile/{userId}", f"@bee:{names[0]}")["displayname"] == "Bee"
        before = files(server)
        for first in range(0, NAMES, IN_ONE_QUERY):
            asked = names[first : first + IN_ONE_QUERY]
            assert sorted(query(server, asked)) == sorted(asked)
        until(lambda: files(server) < before + SPARE, SECONDS_MAX)
        for name in names:
            assert alice.get("profile/{userId}", f"@bee:{name}")["displayname"] == "Bee"
        until(lambda: files(server) < before + SPARE, SECONDS_MAX)


def test_what_a_query_had_them_asked_for_is_not_on_the_disk(network, tmp_path, everybody):
    needed, server = network.peer(), network.server(tmp_path)
    names = everybody.made_up(network, 3)
    with sound(server):
        asked = [*names, needed.name]
        assert sorted(query(server, asked)) == sorted(asked)
        # It is known for a while, and stored of who has something to do with this server.
        everybody.close()
        assert needed.send(server, "GET", LIST)[0] == 200
        assert len(needed.asked(KEYS)) == 1
        assert sorted(query(server, asked)) == sorted(asked)
        needed.close()
        server.restart()
        assert query(server, asked) == [needed.name]
