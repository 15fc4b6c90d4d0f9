"""What notaries that the operator trusts tell of the keys of servers that do not tell them (server-server API, "Querying Keys Through
Another Server")."""

import threading
import time

import pytest

from harness.peer import Key, signed
from harness.server import sound

LIST = "/_matrix/federation/v1/publicRooms"
QUERY = "/_matrix/key/v2/query"
# More than this server waits for one.
SECONDS_MAX = 60
# Less than this server waits for one.
SOON_SECONDS = 12


@pytest.fixture
def silent(network):
    """Notaries that take questions and answer none until the test is over."""
    is_over = threading.Event()

    def answer(_request):
        is_over.wait(SECONDS_MAX)
        return 200, {"server_keys": []}

    peers = [network.peer(), network.peer()]
    for peer in peers:
        peer.answers[QUERY] = answer
    yield peers
    is_over.set()
    for peer in peers:
        peer.close()


@pytest.fixture
def notary(network):
    peer = network.peer()
    yield peer
    peer.close()


def gone_from(network):
    """A server that was there once, and whose keys only notaries know."""
    peer = network.peer()
    peer.close()
    return peer


def tell(notary, *documents):
    """Has a notary answer with what is to be signed by it."""
    content = {"server_keys": [signed(document, notary.name, notary.key) for document in documents]}
    notary.answers[QUERY] = lambda _: (200, content)


def trusting(network, folder, *notaries):
    return network.server(folder, *(word for notary in notaries for word in ("--trusted-key-servers", notary.name)))


def test_a_notary_that_is_silent_keeps_no_key_back_that_another_tells(network, tmp_path, silent, notary):
    gone, unknown, last = gone_from(network), gone_from(network), gone_from(network)
    with sound(trusting(network, tmp_path, *silent, notary)) as server:
        tell(notary, gone.published())
        begun = time.monotonic()
        assert gone.send(server, "GET", LIST)[0] == 200
        assert time.monotonic() - begun < SOON_SECONDS
        assert [len(peer.asked(QUERY)) for peer in silent] == [1, 1]
        # All are waited for, at the same time, where nobody tells a key.
        assert unknown.send(server, "GET", LIST)[0] == 401
        assert [len(peer.asked(QUERY)) for peer in silent] == [2, 2]
        # After that they are left out.
        begun = time.monotonic()
        assert last.send(server, "GET", LIST)[0] == 401
        assert time.monotonic() - begun < SOON_SECONDS
        assert [len(peer.asked(QUERY)) for peer in silent] == [2, 2] and len(notary.asked(QUERY)) == 3


def test_a_document_that_does_not_count_takes_no_other_with_it(network, tmp_path, notary):
    with sound(trusting(network, tmp_path, notary)) as server:
        for spoil in (
            lambda gone: {**gone.published(), "valid_until_ts": 1},
            lambda gone: signed({**gone.published(), "signatures": {}}, gone.name, Key("p9")),
            lambda gone: {"server_name": gone.name},
        ):
            gone = gone_from(network)
            tell(notary, spoil(gone), gone.published())
            assert gone.send(server, "GET", LIST)[0] == 200
        # Nor does one that the notary has not signed.
        gone = gone_from(network)
        by_notary = signed(gone.published(), notary.name, notary.key)
        notary.answers[QUERY] = lambda _: (200, {"server_keys": [gone.published(), by_notary]})
        assert gone.send(server, "GET", LIST)[0] == 200
