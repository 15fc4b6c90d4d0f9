"""What a server in a room is answered: each answer is validated as it comes (server-server API, "PDUs", "Retrieving events")."""

import pytest

from harness import specification
from harness.participant import path
from harness.peer import now_ms


@pytest.fixture
def room(server, alice, resident):
    room = alice.create_room(preset="public_chat", name="The burrow", room_alias_name=alice.user_id[1:].split(":")[0])
    resident.join(server, room)
    return room


def test_a_rooms_events_and_state(server, alice, resident, room):
    first, last = alice.send(room, "first"), alice.send(room, "last")
    (event,) = resident.ask(server, "GET", path("v1/event/{}", last))["pdus"]
    assert event["content"]["body"] == "last"
    assert specification.pdu_faults(event) == []
    state = resident.ask(server, "GET", path("v1/state/{}", room) + f"?event_id={last}")
    ids = resident.ask(server, "GET", path("v1/state_ids/{}", room) + f"?event_id={last}")
    assert len(state["pdus"]) == len(ids["pdu_ids"]) and len(state["auth_chain"]) == len(ids["auth_chain_ids"])
    assert resident.ask(server, "GET", path("v1/event_auth/{}/{}", room, last))["auth_chain"]
    assert len(resident.ask(server, "GET", path("v1/backfill/{}", room) + f"?limit=2&v={last}")["pdus"]) == 2
    between = {"earliest_events": resident.copies[room].ends, "latest_events": [last], "limit": 10}
    missing = resident.ask(server, "POST", path("v1/get_missing_events/{}", room), between)["events"]
    assert [event["content"]["body"] for event in missing if event["type"] == "m.room.message"] == ["first"]
    found = resident.ask(server, "GET", path("v1/timestamp_to_event/{}", room) + f"?ts={now_ms()}&dir=b")
    assert found["event_id"] == last != first
    assert resident.ask(server, "GET", path("v1/hierarchy/{}", room))["room"]["room_id"] == room


def test_templates_and_leaving(server, alice, resident, room):
    target = path("v1/make_leave/{}/{}", room, resident.user())
    assert resident.ask(server, "GET", target)["event"]["content"] == {"membership": "leave"}
    alice.set_state(room, "m.room.join_rules", {"join_rule": "knock"})
    versions = "&".join(f"ver={version}" for version in range(1, 13))
    made = resident.ask(server, "GET", path("v1/make_knock/{}/{}", room, resident.user("carl")) + f"?{versions}")
    assert made["event"]["content"]["membership"] == "knock"
    resident.leave(server, resident.copies[room])


def test_queries(server, alice, resident, room):
    alice.put("profile/{userId}/displayname", alice.user_id, json={"displayname": "Alice"})
    profile = path("v1/query/profile") + "?user_id=" + path("{}", alice.user_id).rsplit("/", 1)[1]
    assert resident.ask(server, "GET", profile)["displayname"] == "Alice"
    alias = f"#{alice.user_id[1:]}"
    directory = path("v1/query/directory") + "?room_alias=" + path("{}", alias).rsplit("/", 1)[1]
    assert resident.ask(server, "GET", directory)["room_id"] == room
    wanted = {alice.user_id: []}
    assert alice.user_id in resident.ask(server, "POST", path("v1/user/keys/query"), {"device_keys": wanted})["device_keys"]
    resident.ask(server, "POST", path("v1/user/keys/claim"), {"one_time_keys": {alice.user_id: {"D": "signed_curve25519"}}})
    resident.ask(server, "GET", path("v1/user/devices/{}", alice.user_id))
    token = alice.post("user/{userId}/openid/request_token", alice.user_id, json={})["access_token"]
    assert resident.ask(server, "GET", path("v1/openid/userinfo") + f"?access_token={token}") == {"sub": alice.user_id}
    resident.ask(server, "POST", path("v1/publicRooms"), {"limit": 1})


def test_the_judge_finds_what_is_wrong():
    send = "/_matrix/federation/v1/send/1"
    good = {"origin": "a.test", "origin_server_ts": 1, "pdus": [], "edus": []}
    assert specification.request_faults("PUT", send, good) == []
    typing = {"edu_type": "m.typing", "content": {"room_id": "!a:a.test", "user_id": "@a:a.test"}}
    for bad in ({**good, "origin": 5}, {"origin": "a.test", "origin_server_ts": 1}, {**good, "edus": [typing]}, {**good, "edus": [{"edu_type": "m.x", "content": {}}]}):
        assert specification.request_faults("PUT", send, bad), bad
    assert specification.request_faults("GET", "/_matrix/federation/v1/backfill/!a", None) == ["v is missing", "limit is missing"]
    assert specification.request_faults("GET", "/_matrix/federation/v1/nothing", None)
    assert specification.response_faults("GET", "/_matrix/federation/v1/event/$a", 200, {"pdus": []})
