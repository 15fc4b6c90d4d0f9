"""The keys of this server, and what it tells of the keys of others (server-server API, "Retrieving server keys")."""

import pytest
import requests

from harness import specification
from harness.client import Client, bodies
from harness.events import id_of
from harness.participant import Participant
from harness.peer import DAY_MS, Key, now_ms, signed, verify
from harness.server import Server, free_port
from harness.waiting import until

LIST = "/_matrix/federation/v1/publicRooms"
KEYS = "/_matrix/key/v2/server"
QUERY = "/_matrix/key/v2/query"


def asked(method, server, path, **more):
    """The answer to a request that nobody has signed."""
    response = requests.request(method, server.base_url + path, timeout=60, **more)
    specification.note_answer(method, path, response.status_code)
    return response


def get(server, path, **query):
    response = asked("GET", server, path, params=query)
    assert response.status_code == 200, response.text
    assert specification.response_faults("GET", path, 200, response.json()) == []
    return response.json()


def ask(server, wanted):
    response = asked("POST", server, QUERY, json={"server_keys": wanted})
    assert response.status_code == 200, response.text
    assert specification.response_faults("POST", QUERY, 200, response.json()) == []
    return response.json()["server_keys"]


def own_key(server):
    ((key_id, key),) = get(server, KEYS)["verify_keys"].items()
    return key_id, key["key"]


def assert_told(server, keys, peer):
    """The peer's keys, as it published them, under its own and the notary's signature."""
    assert keys["server_name"] == peer.name
    assert keys["verify_keys"][peer.key.id] == {"key": peer.key.public}
    verify(keys, peer.name, peer.key.id, peer.key.public)
    verify(keys, server.name, *own_key(server))


def test_the_version(server):
    told = get(server, "/_matrix/federation/v1/version")["server"]
    assert told["name"] == "Warren" and told["version"]


def test_own_keys(server):
    keys = get(server, KEYS)
    assert keys["server_name"] == server.name
    assert keys["old_verify_keys"] == {}
    hour = DAY_MS // 24
    assert now_ms() + hour < keys["valid_until_ts"] <= now_ms() + 7 * DAY_MS
    verify(keys, server.name, *own_key(server))
    key_id, _ = own_key(server)
    assert get(server, f"{KEYS}/{key_id}")["verify_keys"] == keys["verify_keys"]


def test_a_notary_tells_of_itself(server):
    (keys,) = get(server, f"{QUERY}/{server.name}")["server_keys"]
    verify(keys, server.name, *own_key(server))


def test_a_notary_tells_of_others(server, peer):
    (keys,) = get(server, f"{QUERY}/{peer.name}")["server_keys"]
    assert_told(server, keys, peer)
    (keys,) = get(server, f"{QUERY}/{peer.name}/{peer.key.id}", minimum_valid_until_ts=now_ms())["server_keys"]
    assert_told(server, keys, peer)
    for wanted in ({}, {peer.key.id: {}}, {peer.key.id: {"minimum_valid_until_ts": now_ms()}}):
        (keys,) = ask(server, {peer.name: wanted})
        assert_told(server, keys, peer)
    assert len(peer.asked(KEYS)) == 1, "what is known and fresh is not asked for again"


def test_a_notary_tells_of_several_and_not_of_the_unknown(server, network):
    peers = [network.peer(), network.peer()]
    told = ask(server, {name: {} for name in [peers[0].name, peers[1].name, "nowhere.test", "no name", server.name]})
    assert {keys["server_name"] for keys in told} == {peers[0].name, peers[1].name, server.name}
    assert ask(server, {}) == []
    assert get(server, f"{QUERY}/nowhere.test")["server_keys"] == []


def test_a_notary_tells_of_those_that_are_gone(server, network):
    peer = network.peer()
    assert peer.send(server, "GET", LIST)[0] == 200
    peer.close()
    (keys,) = get(server, f"{QUERY}/{peer.name}", minimum_valid_until_ts=now_ms() + 30 * DAY_MS)["server_keys"]
    assert_told(server, keys, peer)


def test_what_a_notary_does_not_vouch_for(server, network):
    leaked, denied = network.peer(), network.peer("b.denied.test")
    leaked.key = Key("leaked")
    told = ask(server, {leaked.name: {}, denied.name: {}})
    assert told == [] and denied.requests == []


def test_queries_that_are_none(server):
    for body, errcode in (({}, "M_BAD_JSON"), ({"server_keys": []}, "M_BAD_JSON")):
        response = asked("POST", server, QUERY, json=body)
        assert (response.status_code, response.json()["errcode"]) == (400, errcode)
    response = asked("GET", server, f"{QUERY}/no%20name")
    assert (response.status_code, response.json()["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.fixture
def gone(network):
    """A server that was there once, and whose keys only the notary knows."""
    peer = network.peer()
    peer.close()
    return peer


def notary_tells(network, change):
    """Has the notary answer queries with what `change` makes."""
    network.notary.answers[QUERY] = lambda _: (200, {"server_keys": change()})


def test_a_trusted_notary_is_believed(server, network, gone):
    notary_tells(network, lambda: [signed(gone.published(), network.notary.name, network.notary.key)])
    assert gone.send(server, "GET", LIST)[0] == 200
    (request,) = network.notary.asked(QUERY)[-1:]
    assert gone.name.encode() in request.body and gone.key.id.encode() in request.body
    assert request.headers["Authorization"].startswith(f'X-Matrix origin="{server.name}"')


def test_what_a_notary_has_not_signed_is_not_believed(server, network, gone):
    stranger = network.peer()
    for change in (
        lambda: [gone.published()],
        lambda: [signed(gone.published(), stranger.name, stranger.key)],
        lambda: [signed(gone.published(), network.notary.name, Key(network.notary.key.id.removeprefix("ed25519:")))],
        lambda: [signed(stranger.published(), network.notary.name, network.notary.key)],
        lambda: [{**signed(gone.published(), network.notary.name, network.notary.key), "valid_until_ts": now_ms() * 2}],
        lambda: "nothing",
    ):
        notary_tells(network, change)
        gone.name = f"{gone.name.split(':')[0]}x.test:{gone.port}"
        assert gone.send(server, "GET", LIST)[0] == 401


def test_two_servers_of_ours_over_their_own_tls(server, network, tmp_path):
    port = free_port()
    name, certificate = f"ours.test:{port}", str(network.authority.certificate("ours.test"))
    network.names.addresses["ours.test"] = ["127.0.0.1"]
    options = ["--server-name", name, "--listen", f"https://127.0.0.1:{port}#federation"]
    options += ["--tls-cert", certificate, "--tls-key", certificate]
    with Server(tmp_path / "data", *options, port=port):
        (keys,) = get(server, f"{QUERY}/{name}")["server_keys"]
    ((key_id, key),) = keys["verify_keys"].items()
    verify(keys, name, key_id, key["key"])
    verify(keys, server.name, *own_key(server))


def test_keys_count_for_a_week_at_most(server, alice, resident):
    """Also those that their server publishes for a year; which a notary tells on as it was published."""
    resident.changes["valid_until_ts"] = now_ms() + 365 * DAY_MS
    room_id = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room_id)
    # What is of later waits for a key that is good then.
    for body, days in (("in eight days", 8), ("in six days", 6)):
        resident.transact(server, [resident.message(copy, body, origin_server_ts=now_ms() + days * DAY_MS)])
    alice.sync_until(lambda _: "in six days" in bodies(alice.messages(room_id)["chunk"]))
    assert bodies(alice.messages(room_id)["chunk"]) == ["in six days"]
    (keys,) = get(server, f"{QUERY}/{resident.name}")["server_keys"]
    assert keys["valid_until_ts"] == resident.changes["valid_until_ts"]


# Long enough to be seen before its half, and after.
LIFE_MS = 8_000


def test_a_notary_asks_again_at_half_the_life_of_what_it_knows(network, tmp_path):
    """And not before. It is started anew in between, as whom it has just asked it does not ask again for a while."""
    server, lasting, brief = network.server(tmp_path), network.peer(), network.peer()
    with server:
        begun = now_ms()
        end = brief.changes["valid_until_ts"] = begun + LIFE_MS
        for peer in (lasting, brief):
            assert peer.send(server, "GET", LIST)[0] == 200
        assert server.stop() == 0
    with server:
        until(lambda: get(server, f"{QUERY}/{brief.name}") and len(brief.asked(KEYS)) == 2)
        assert begun + LIFE_MS // 2 <= now_ms() < end
        get(server, f"{QUERY}/{lasting.name}")
        assert len(lasting.asked(KEYS)) == 1


def test_a_notary_asks_again_for_keys_that_are_good_for_longer(network, tmp_path):
    server, peer = network.server(tmp_path), network.peer()
    with server:
        assert peer.send(server, "GET", LIST)[0] == 200
        assert server.stop() == 0
    until_ts = peer.changes["valid_until_ts"] = now_ms() + 3 * DAY_MS
    with server:
        for minimum, times in ((now_ms() + DAY_MS // 2, 1), (now_ms() + 2 * DAY_MS, 2)):
            (keys,) = get(server, f"{QUERY}/{peer.name}", minimum_valid_until_ts=minimum)["server_keys"]
            assert len(peer.asked(KEYS)) == times
        assert keys["valid_until_ts"] == until_ts


def test_a_key_that_was_rotated_is_published_as_old(network, tmp_path, resident):
    """Ours: what it signed can be verified still, and nothing is signed with it any more."""
    server = network.server(tmp_path)
    with server:
        alice = Client(server.base_url).register("alice")
        room_id = alice.create_room(preset="public_chat", room_version="11")
        resident.join(server, room_id)
        alice.send(room_id, "before")
        resident.until(lambda: "before" in resident.bodies)
        old_id, old_key = own_key(server)
        assert server.stop() == 0
    before = now_ms()
    rotated = server.command("key", "rotate", *server.options)
    assert rotated.returncode == 0, rotated.stderr
    with server:
        new_id, new_key = own_key(server)
        assert new_id != old_id and new_id in rotated.stdout and old_id in rotated.stdout
        for keys in (get(server, KEYS), *get(server, f"{QUERY}/{server.name}")["server_keys"]):
            assert list(keys["verify_keys"]) == [new_id]
            (old,) = keys["old_verify_keys"].items()
            assert old[0] == old_id and old[1]["key"] == old_key and before <= old[1]["expired_ts"] <= now_ms()
            verify(keys, server.name, new_id, new_key)
            assert old_id not in keys["signatures"][server.name]
        alice.send(room_id, "after")
        resident.until(lambda: "after" in resident.bodies)
        signers = {event["content"].get("body"): list(event["signatures"][server.name]) for event in resident.pdus}
        assert (signers["before"], signers["after"]) == ([old_id], [new_id])
        # An event of ours from before comes back to us, and is known as ours.
        event = next(event for event in resident.pdus if event["content"].get("body") == "before")
        assert list(resident.transact(server, [event]).values()) == [{}]
        assert server.stop() == 0
        server.check()


def test_an_old_key_of_a_peer_counts_for_its_time_and_for_events_alone(server, alice, resident):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    old, resident.key = resident.key, Key("p2")
    expired = now_ms()
    resident.changes["old_verify_keys"] = {old.id: {"key": old.public, "expired_ts": expired}}
    copy = resident.join(server, room_id)
    status, answer = resident.send(server, "GET", LIST, key=old)
    assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")
    times = (("in time", expired), ("too late", expired + 1))
    events = [resident.message(copy, body, key=old, origin_server_ts=time) for body, time in times]
    results = resident.transact(server, events)
    assert results[id_of(events[0])] == {} and "not valid" in results[id_of(events[1])]["error"]
    alice.sync_until(lambda _: bodies(alice.messages(room_id)["chunk"]) == ["in time"])


def test_what_lacks_a_new_key_waits_no_longer_than_until_it_may_be_asked_for(server, alice, network, resident):
    """Another server tells of it just after the keys were asked for, once more for a made-up one, which they are not for a while."""
    room_id = alice.create_room(preset="public_chat", room_version="11")
    teller = network.peer(kind=Participant)
    copy = resident.join(server, room_id)
    teller.join(server, room_id)
    resident.catch_up(server, copy)
    assert resident.send(server, "GET", LIST, key=Key("p9"))[0] == 401
    old, resident.key = resident.key, Key("p2")
    resident.changes["old_verify_keys"] = {old.id: {"key": old.public, "expired_ts": now_ms()}}
    event = resident.message(copy, "new key")
    teller.know(event)
    teller.before[id_of(event)] = dict(copy.state)
    assert teller.transact(server, [event]) == {id_of(event): {}}
    alice.sync_until(lambda _: "new key" in bodies(alice.messages(room_id)["chunk"]))
    teller.close()


def test_a_key_that_went_out_of_use_stays_so(network, tmp_path):
    """Whoever tells an answer of before: a cache of the peer's, or a notary. The newest is what this server tells on."""
    server, peer = network.server(tmp_path, "--trusted-key-servers", network.notary.name), network.peer()
    old, new = peer.key, Key("p2")
    before = signed(peer.published(), network.notary.name, network.notary.key)
    notary_tells(network, lambda: [before])

    def publish(key, **changes):
        peer.key, peer.changes = key, {**peer.changes, **changes}

    with server:
        assert peer.send(server, "GET", LIST)[0] == 200
        publish(new, old_verify_keys={old.id: {"key": old.public, "expired_ts": now_ms()}})
        peer.changes["valid_until_ts"] = now_ms() + DAY_MS // 2
        assert server.stop() == 0
    with server:
        assert peer.send(server, "GET", LIST)[0] == 200
        (keys,) = get(server, f"{QUERY}/{peer.name}")["server_keys"]
        assert list(keys["verify_keys"]) == [new.id], "what was published last, though the other counts for longer"
        assert server.stop() == 0
    # A cache of the peer's answers with what was, to a question about a key that is not known.
    publish(old, old_verify_keys={})
    with server:
        assert peer.send(server, "GET", LIST, key=Key("p3"))[0] == 401
        assert len(peer.asked(KEYS)) == 3 and network.notary.asked(QUERY)
        assert peer.send(server, "GET", LIST, key=new)[0] == 200
        assert peer.send(server, "GET", LIST, key=old)[0] == 401
        assert server.stop() == 0
