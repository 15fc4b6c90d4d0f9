"""Requests between servers that are made to deceive or to cost: they are refused, and others are served meanwhile.

The class of fault: a missing or late check of signatures, leaked keys, a notary that amplifies, an origin in whose name
others make this server work.
"""

import concurrent.futures

import pytest
import requests

from harness.peer import Key, authorization

LIST = "/_matrix/federation/v1/publicRooms"
KEYS = "/_matrix/key/v2/server"
QUERY = "/_matrix/key/v2/query"


@pytest.fixture(scope="module")
def server(network, tmp_path_factory):
    with network.server(tmp_path_factory.mktemp("requests")) as server:
        yield server


def test_a_server_is_not_asked_more_often_because_others_name_it(server, network):
    """Whoever sends bad requests in another server's name makes this one ask there once in a while, and no more."""
    victim = network.peer()
    for number in range(40):
        header = authorization("GET", LIST, victim.name, server.name, Key(f"k{number}"))
        status, body = victim.send(server, "GET", LIST, headers=[header])
        assert (status, body["errcode"]) == (401, "M_UNAUTHORIZED")
        requests.get(f"{server.base_url}{QUERY}/{victim.name}/ed25519:k{number}", timeout=60)
    assert len(victim.asked(KEYS)) == 1


def test_one_query_makes_a_notary_ask_few(server, network):
    peers = [network.peer() for _ in range(30)]
    body = {"server_keys": {peer.name: {} for peer in peers}}
    told = requests.post(server.base_url + QUERY, json=body, timeout=60).json()["server_keys"]
    assert len(told) == 20 == sum(len(peer.asked(KEYS)) for peer in peers)
    body = {"server_keys": {f"n{number}.test": {} for number in range(501)}}
    response = requests.post(server.base_url + QUERY, json=body, timeout=60)
    assert (response.status_code, response.json()["errcode"]) == (413, "M_TOO_LARGE")


def test_a_key_id_does_not_come_to_stand_for_another_key(network, tmp_path):
    """Whoever takes a server over later cannot put another key in the place of one that events were signed with."""
    with network.server(tmp_path) as server:
        peer = network.peer()
        first = peer.key
        assert peer.send(server, "GET", LIST)[0] == 200
        peer.key = Key(first.id.removeprefix("ed25519:"))
        assert peer.send(server, "GET", LIST)[0] == 401
        assert peer.send(server, "GET", LIST, key=first)[0] == 200


def test_slow_and_endless_answers(server, network):
    """A peer that trickles or never ends costs a fetch its time, not the server's memory or other requests."""
    endless, trickling, healthy = network.peer(), network.peer(), network.peer()
    endless.answers[KEYS] = lambda _: (200, b" " * 5_000_000)
    trickling.trickle = True
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        refused = [pool.submit(peer.send, server, "GET", LIST) for peer in (endless, trickling)]
        assert healthy.send(server, "GET", LIST)[0] == 200
        for response in refused:
            # The specification's patience of who sends a request is a minute.
            assert response.result(timeout=60)[0] == 401


def test_who_sends_wrong_signatures_is_not_listened_to_for_long(network, tmp_path):
    """Each costs the reading and checking of a body; those that are right cost nothing of this."""
    with network.server(tmp_path, "--rate-limits", "on") as server:
        peer = network.peer()
        for _ in range(400):
            assert peer.send(server, "GET", LIST)[0] == 200
        wrong = [peer.send(server, "GET", LIST, key=Key())[0] for _ in range(400)]
        assert wrong.count(401) >= 300 and wrong[-1] == 429, wrong
