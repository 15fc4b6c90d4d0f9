"""What notaries that the operator trusts tell of the keys of servers that do not tell them (server-server API, "Querying Keys Through
Another Server")."""

import shutil
import threading
import time

import pytest
import requests

from harness.client import Client
from harness.events import redacted
from harness.peer import DAY_MS, Key, Peer, now_ms, signed
from harness.rooms import contents, joined_members, via
from harness.server import sound
from harness.waiting import until

KEYS = "/_matrix/key/v2/server"
LIST = "/_matrix/federation/v1/publicRooms"
QUERY = "/_matrix/key/v2/query"
# More than this server waits for one.
SECONDS_MAX = 60
# Less than this server waits for one.
SOON_SECONDS = 12
HOUR_MS = DAY_MS // 24


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
        answer = notary.answers[QUERY]

        def answer_last(request):
            until(lambda: all(peer.asked(QUERY) for peer in silent))
            return answer(request)

        notary.answers[QUERY] = answer_last
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


@pytest.mark.parametrize("is_named", [False, True], ids=["told by a notary", "named by the operator"])
def test_a_server_that_has_lost_its_key_knows_what_it_signed_before(network, tmp_path, notary, resident, is_named):
    """Its rooms are as others have them; it vouches to nobody for a key that it is only told of, and signs with its own alone."""
    server = trusting(network, tmp_path, notary)
    with server:
        alice = Client(server.base_url).register("alice")
        room = alice.create_room(preset="public_chat", room_version="11", topic="as it was")
        resident.join(server, room)
        banned = resident.user("mal")
        alice.post("rooms/{roomId}/ban", room, json={"user_id": banned})
        redacted_id = alice.send(room, "never mind")
        alice.send(room, "before")
        resident.until(lambda: "before" in resident.bodies)
        resident.catch_up(server, resident.copies[room])
        # As those give it who have taken in that it was redacted.
        resident.know(redacted(resident.events[redacted_id]))
        published = requests.get(server.base_url + KEYS, timeout=SECONDS_MAX).json()
        assert server.stop() == 0
    shutil.rmtree(server.data_dir)
    ((lost, key),) = published["verify_keys"].items()
    old = {"key": key["key"], "expired_ts": now_ms()}
    if is_named:
        server.options += ["--old-signing-keys", f"{lost} {old['key']} {old['expired_ts']}"]
    else:
        tell(notary, published)
    with server:
        bob = Client(server.base_url).register("bob")
        bob.join(room, query=via(resident))
        state = contents(bob, room)
        assert state["m.room.topic", ""]["topic"] == "as it was"
        assert state["m.room.member", banned] == {"membership": "ban"}
        assert state["m.room.member", alice.user_id]["membership"] == "join"
        before = {event["event_id"]: event["content"] for event in bob.messages(room, limit=100)["chunk"]}
        assert {"msgtype": "m.text", "body": "before"} in before.values() and before[redacted_id] == {}
        told = requests.get(server.base_url + KEYS, timeout=SECONDS_MAX).json()
        (new,) = told["verify_keys"]
        assert lost != new and list(told["signatures"][server.name]) == [new]
        assert told["old_verify_keys"] == ({lost: old} if is_named else {})
        bob.send(room, "after")
        resident.until(lambda: "after" in resident.bodies)
        (said,) = [event for event in resident.pdus if event["content"].get("body") == "after"]
        assert list(said["signatures"][server.name]) == [new]
        assert server.stop() == 0
    checked = server.command("check", *server.options)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def published_before(server, key, hours, **more):
    """What the server published, before it lost all of its keys, that counts until so many hours from now."""
    keys = {"server_name": server.name, "valid_until_ts": now_ms() + hours * HOUR_MS}
    keys |= {"verify_keys": {key.id: {"key": key.public}}, "old_verify_keys": {}, **more}
    return signed(keys, server.name, key)


def signed_before(resident, copy, server, key, hours_ago):
    """A user of the server came into a room of the resident's, and it signed that with a key of then."""
    user = f"@of-{hours_ago}-hours:{server.name}"
    join = resident.come(copy, user, origin_server_ts=now_ms() - hours_ago * HOUR_MS)
    resident.know({**join, "signatures": signed(redacted(join), server.name, key)["signatures"]})
    return user


@pytest.mark.parametrize("is_newest_last", [False, True], ids=["the newest first", "the newest last"])
@pytest.mark.parametrize("is_put_out", [False, True], ids=["a key that counted on", "a key that was put out of use"])
def test_of_what_notaries_tell_of_a_lost_key_the_newest_counts(
    network, tmp_path, resident, until_over, is_put_out, is_newest_last
):
    """Whichever of them answers first: one asked for it last before it was put out of use, or before it counted for longer."""
    first, last = until_over(Peer), until_over(Peer)
    server, lost, other = trusting(network, tmp_path, first, last), Key("lost"), Key("other")
    put_out = {lost.id: {"key": lost.public, "expired_ts": now_ms() - 10 * HOUR_MS}}
    documents = [published_before(server, lost, -10), published_before(server, lost, -1)]
    if is_put_out:
        documents = [published_before(server, lost, -1), published_before(server, other, 1, old_verify_keys=put_out)]
    tell(first, documents[not is_newest_last])
    tell(last, documents[is_newest_last])
    answer = last.answers[QUERY]

    def answer_last(request):
        # Whose own key is asked for has been heard.
        until(lambda: first.asked(KEYS))
        return answer(request)

    last.answers[QUERY] = answer_last
    copy = resident.create()
    early, late = (signed_before(resident, copy, server, lost, hours) for hours in (12, 5))
    with sound(server):
        alice = Client(server.base_url).register("alice")
        alice.join(copy.room_id, query=via(resident))
        of_others = {early} if is_put_out else {early, late}
        assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user(), *of_others}
        assert [len(notary.asked(QUERY)) for notary in (first, last)] == [1, 1]
