"""What a server gets that is in none of the rooms: nothing, and no transaction makes this one stumble."""

import urllib.parse

import pytest

from harness.participant import path

SEND = "/_matrix/federation/v1/send/"


@pytest.fixture
def room(alice):
    return alice.create_room(preset="private_chat")


READS = [
    ("GET", "v1/state/{0}?event_id={1}", None),
    ("GET", "v1/state_ids/{0}?event_id={1}", None),
    ("GET", "v1/event/{1}", None),
    ("GET", "v1/event_auth/{0}/{1}", None),
    ("GET", "v1/backfill/{0}?limit=10&v={1}", None),
    ("GET", "v1/timestamp_to_event/{0}?ts=0&dir=f", None),
    ("POST", "v1/get_missing_events/{0}", {"earliest_events": [], "latest_events": ["$x"]}),
]


# More than keys are given out of at once, and more than are claimed in one write.
TOO_MANY_DEVICES, SEVERAL_BATCHES = 100_001, 1_000
ALGORITHM = "signed_curve25519"


@pytest.fixture
def with_key(alice):
    """Alice, with one one-time key."""
    alice.post("keys/upload", json={"one_time_keys": {f"{ALGORITHM}:1": {"key": "k", "signatures": {}}}})
    return alice


@pytest.fixture(params=["a server", "a client"])
def claim(request, server, peer, bob):
    """Claims keys, and answers with status and answer."""

    def of_client(wanted, status):
        return bob.post("keys/claim", json={"one_time_keys": wanted}, status=status)

    def of_server(wanted, status):
        told, answer = peer.send(server, "POST", path("v1/user/keys/claim"), {"one_time_keys": wanted})
        assert told == status, answer
        return answer

    return of_server if request.param == "a server" else of_client


def test_a_key_is_given_out_among_many_that_there_are_not(server, claim, with_key):
    wanted = {f"@made-up-{number}:{server.name}": {"D": ALGORITHM} for number in range(SEVERAL_BATCHES)}
    devices = {f"D{number}": ALGORITHM for number in range(SEVERAL_BATCHES)}
    wanted[with_key.user_id] = {**devices, with_key.device_id: ALGORITHM}
    found = claim(wanted, 200)["one_time_keys"]
    assert {user: list(devices) for user, devices in found.items()} == {with_key.user_id: [with_key.device_id]}
    assert claim(wanted, 200)["one_time_keys"] == {}


@pytest.mark.parametrize("is_one_user", [True, False])
def test_keys_of_too_many_devices_are_given_out_to_nobody(server, claim, with_key, is_one_user):
    own = {with_key.user_id: {with_key.device_id: ALGORITHM}}
    numbers = range(TOO_MANY_DEVICES)
    if is_one_user:
        wanted = {with_key.user_id: {f"D{number}": ALGORITHM for number in numbers} | own[with_key.user_id]}
    else:
        wanted = {f"@u{number}:{server.name}": {} for number in numbers} | own
    assert claim(wanted, 413)["errcode"] == "M_TOO_LARGE"
    assert claim(own, 200)["one_time_keys"], "none was taken"


@pytest.mark.parametrize("method, template, content", READS, ids=[row[1].split("/")[1] for row in READS])
def test_a_room_is_closed_to_servers_that_are_not_in_it(server, peer, alice, room, method, template, content):
    event_id = alice.send(room, "secret")
    status, answer = peer.send(server, method, path(template, room, event_id), content)
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    assert "secret" not in str(answer)


def test_a_room_that_is_not_there_is_as_closed(server, peer):
    target = path("v1/state/{0}?event_id={1}", "!nothing:" + server.name, "$nothing")
    status, answer = peer.send(server, "GET", target)
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer


def test_users_of_others_cannot_be_made_to_join(server, peer, alice):
    room = alice.create_room(preset="public_chat")
    target = path("v1/make_join/{0}/{1}?ver=10", room, f"@mallory:{server.name}")
    status, answer = peer.send(server, "GET", target)
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer


def test_a_version_that_the_other_does_not_speak(server, peer, alice):
    room = alice.create_room(preset="public_chat", room_version="10")
    target = path("v1/make_join/{0}/{1}?ver=1&ver=2", room, f"@zoe:{peer.name}")
    status, answer = peer.send(server, "GET", target)
    assert status == 400
    assert (answer["errcode"], answer["room_version"]) == ("M_INCOMPATIBLE_ROOM_VERSION", "10")


def test_a_room_for_the_invited_is_closed(server, peer, room):
    for action in ("join", "knock"):
        target = path(f"v1/make_{action}/{{0}}/{{1}}?ver=10&ver=11&ver=12", room, f"@zoe:{peer.name}")
        status, answer = peer.send(server, "GET", target)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer


def test_transactions_have_limits(server, peer):
    for content in ({"pdus": [{}] * 51}, {"edus": [{}] * 101}):
        status, answer = peer.send(server, "PUT", SEND + "many", {"origin": peer.name, "origin_server_ts": 1, **content})
        assert (status, answer["errcode"]) == (400, "M_TOO_LARGE"), answer


def test_what_makes_no_sense_is_passed_over(server, peer, room):
    pdus = [
        {},
        {"room_id": 5},
        {"room_id": "!nothing:elsewhere.test", "type": "m.room.message"},
        {"room_id": room, "type": "m.room.message"},
        {"room_id": room, "type": "m.room.message", "sender": f"@zoe:{peer.name}", "depth": 2**63, "content": {}},
    ]
    edus = [{}, {"edu_type": "m.typing"}, {"edu_type": "m.unheard", "content": {}}]
    content = {"origin": peer.name, "origin_server_ts": 1, "pdus": pdus, "edus": edus}
    status, answer = peer.send(server, "PUT", SEND + "nonsense", content)
    assert status == 200, answer
    assert all("error" in result for result in answer["pdus"].values())


def test_queries_are_for_users_of_this_server(server, peer, alice):
    foreign = f"@zoe:{peer.name}"
    for target in (f"v1/query/profile?user_id={urllib.parse.quote(foreign)}", path("v1/user/devices/{0}", foreign)):
        target = target if target.startswith("/") else "/_matrix/federation/" + target
        status, answer = peer.send(server, "GET", target)
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND"), answer
    status, answer = peer.send(server, "POST", path("v1/user/keys/query"), {"device_keys": {foreign: [], alice.user_id: []}})
    assert foreign not in answer["device_keys"]


@pytest.mark.parametrize("user_id", ["@user1:localhost:http", "user1", "#user1:localhost"])
def test_a_profile_is_asked_for_by_the_id_of_a_user(server, peer, user_id):
    target = path("v1/query/profile") + "?user_id=" + urllib.parse.quote(user_id, safe="")
    status, answer = peer.send(server, "GET", target)
    assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM"), answer


def test_devices_of_a_user(server, peer, alice):
    status, answer = peer.send(server, "GET", path("v1/user/devices/{0}", alice.user_id))
    assert status == 200, answer
    assert answer["user_id"] == alice.user_id and answer["devices"] == []
    assert isinstance(answer["stream_id"], int)


def test_an_unheard_query(server, peer):
    status, answer = peer.send(server, "GET", path("v1/query/weather"))
    assert (status, answer["errcode"]) == (404, "M_UNRECOGNIZED"), answer
