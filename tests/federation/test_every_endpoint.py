"""Whatever other servers ask for, as their programs of today and of before do; and that nothing was left out."""

import threading

import pytest
import requests

from harness import served, specification
from harness.client import Client, unique
from harness.participant import Participant, id_of, path
from harness.peer import Key, authorization, canonical, signed
from harness.pictures import png
from harness.rooms import invited, joined_members, members
from harness.server import Server


def put(peer, server, target, event):
    """The answer to an event that is handed in by version 1: an array of status and content."""
    status, answer = peer.send(server, "PUT", target, event)
    assert status == 200, answer
    code, content = answer
    assert code == 200
    return content


def test_joining_and_leaving_as_it_was_done_before(server, alice, resident):
    room, user = alice.create_room(preset="public_chat", room_version="11"), resident.user()
    status, made = resident.send(server, "GET", path("v1/make_join/{}/{}?ver=11", room, user))
    assert status == 200, made
    names = "room_id type sender state_key depth prev_events auth_events origin_server_ts".split()
    join = resident.sign({**{name: made["event"][name] for name in names}, "content": {"membership": "join"}})
    joined = put(resident, server, path("v1/send_join/{}/{}", room, id_of(join)), join)
    assert {event["type"] for event in joined["state"]} >= {"m.room.create", "m.room.power_levels", "m.room.join_rules"}
    assert user in joined_members(alice, room)
    status, made = resident.send(server, "GET", path("v1/make_leave/{}/{}", room, user))
    assert status == 200, made
    leave = resident.sign({**{name: made["event"][name] for name in names}, "content": {"membership": "leave"}})
    assert put(resident, server, path("v1/send_leave/{}/{}", room, id_of(leave)), leave) == {}
    assert user not in joined_members(alice, room)
    # Who is out stays out by the same paths.
    for target, event in ((path("v1/send_join/{}/{}", room, "$other"), join), (path("v1/send_leave/{}/{}", room, "$other"), leave)):
        assert resident.send(server, "PUT", target, event)[0] == 400


# What servers call that have these endpoints from before they were in the specification.
OLDER_KNOCKS, OLDER_FILES = "unstable/xyz.amorgan.knock", "unstable/org.matrix.msc3916.v2"


@pytest.mark.parametrize("knocks", ["v1", OLDER_KNOCKS])
def test_knocking_and_leaving(server, alice, resident, knocks):
    state = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
    room = alice.create_room(preset="private_chat", room_version="11", initial_state=state)
    user = resident.user()
    names = "room_id type sender state_key content depth prev_events auth_events origin_server_ts".split()
    for membership, asked, handed_in in (("knock", knocks, knocks), ("leave", "v1", "v2")):
        status, made = resident.send(server, "GET", path(f"{asked}/make_{membership}/{{}}/{{}}?ver=11", room, user))
        assert status == 200, made
        event = resident.sign({name: made["event"][name] for name in names})
        target = f"{handed_in}/send_{membership}/{{}}/{{}}"
        status, answer = resident.send(server, "PUT", path(target, room, id_of(event)), event)
        assert status == 200, answer
        assert alice.state(room, "m.room.member", user)["membership"] == membership
        status, _ = resident.send(server, "PUT", path(target, room, "$other"), event)
        assert status == 400


def test_invites(server, alice, resident):
    copy = resident.create(join_rule="invite")
    status, answer = resident.invite(server, copy, alice.user_id)
    assert status == 200 and server.name in answer["event"]["signatures"]
    alice.sync_until(lambda answer: invited(answer, copy.room_id))
    event = resident.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    assert resident.send_invite(server, copy.room_id, event, "$other")[0] == 400


def test_an_address_turns_out_to_be_a_user(server, alice, resident):
    room, key, user = alice.create_room(preset="private_chat", room_version="11"), Key("0"), resident.user()
    content = {"display_name": "b...", "public_key": key.public, "key_validity_url": "https://identity.test/"}
    alice.set_state(room, "m.room.third_party_invite", content, key="token")
    event = {"type": "m.room.member", "room_id": room, "sender": alice.user_id, "state_key": user}
    target = path("v1/exchange_third_party_invite/{}", room)
    for by, expected in ((Key("0"), 403), (key, 200)):
        proof = {"signed": signed({"mxid": user, "token": "token"}, "identity.test", by)}
        event["content"] = {"membership": "invite", "third_party_invite": proof}
        assert resident.send(server, "PUT", target, event)[0] == expected
    assert alice.state(room, "m.room.member", user)["membership"] == "invite"


def test_an_invite_by_an_address_comes_into_the_room_though_its_requester_goes_away(server, alice, resident):
    room, key, user = alice.create_room(preset="private_chat", room_version="11"), Key("0"), resident.user()
    content = {"display_name": "b...", "public_key": key.public, "key_validity_url": "https://identity.test/"}
    alice.set_state(room, "m.room.third_party_invite", content, key="token")
    was_asked, may_answer = threading.Event(), threading.Event()

    def answer_invite(*request):
        was_asked.set()
        may_answer.wait(20)
        return Participant.answer_invite(resident, *request)

    resident.answer_invite = answer_invite
    event = {"type": "m.room.member", "room_id": room, "sender": alice.user_id, "state_key": user}
    proof = {"signed": signed({"mxid": user, "token": "token"}, "identity.test", key)}
    event["content"] = {"membership": "invite", "third_party_invite": proof}
    target = path("v1/exchange_third_party_invite/{}", room)
    header = authorization("PUT", target, resident.name, server.name, resident.key, content=event)
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.put(server.base_url + target, data=canonical(event), headers={"Authorization": header}, timeout=1)
    assert was_asked.wait(20)
    may_answer.set()
    alice.sync_until(lambda _: user in members(alice, room, "invite"))


def test_who_is_in_no_room_leaves_none(server, alice, peer):
    room = alice.create_room(preset="private_chat")
    status, answer = peer.send(server, "GET", path("v1/make_leave/{}/{}", room, f"@nobody:{peer.name}"))
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


def test_a_name_that_stands_for_no_room(server, peer):
    target = path("v1/query/directory") + "?room_alias=" + path("{}", f"#nothing:{server.name}").rsplit("/", 1)[1]
    status, answer = peer.send(server, "GET", target)
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("room_version", ["1", "2"])
def test_an_invite_as_it_was_made_before(server, alice, resident, room_version):
    """Events of these rooms have an id of their own."""
    room = f"!{unique('room')}:{resident.name}"
    event = resident.old_invite(room, alice.user_id)
    name = {"type": "m.room.name", "state_key": "", "sender": event["sender"], "content": {"name": "The burrow"}}
    event["unsigned"] = {"invite_room_state": [name]}
    target = path("v1/invite/{}/{}", room, event["event_id"])
    answer = put(resident, server, target, event)
    assert set(answer["event"]["signatures"]) == {server.name, resident.name}
    shown = alice.sync_until(lambda answer: invited(answer, room))["invite_state"]["events"]
    assert "The burrow" in [event["content"].get("name") for event in shown]
    wrong = {**event, "state_key": f"@nobody:{resident.name}"}
    assert resident.send(server, "PUT", target, wrong)[0] in (400, 403)


def test_the_directory_is_asked_for_in_pages(warren, peer):
    server, alice = warren, Client(warren.base_url).register("alice")
    rooms = [alice.create_room(preset="public_chat", visibility="public", name=unique("listed")) for _ in range(3)]
    target = path("v1/publicRooms")
    found, since = [], ""
    for _ in rooms:
        status, page = peer.send(server, "GET", f"{target}?limit=1{since}")
        assert status == 200, page
        assert page["total_room_count_estimate"] == len(rooms)
        found += [entry["room_id"] for entry in page["chunk"]]
        since = f"&since={page.get('next_batch')}"
    assert sorted(found) == sorted(rooms) and "next_batch" not in page
    assert peer.send(server, "GET", f"{target}?limit=few")[0] == 400
    assert peer.send(server, "POST", target, {"limit": "few"})[0] == 400


def test_rooms_that_no_other_server_can_join_are_not_in_its_directory(server, alice, peer):
    name, content = unique("listed"), {"m.federate": False}
    listed = {"preset": "public_chat", "visibility": "public", "name": name}
    room = alice.create_room(**listed)
    own = alice.create_room(**listed, creation_content=content)
    body, target = {"filter": {"generic_search_term": name}}, path("v1/publicRooms")
    shown = [entry["room_id"] for entry in peer.send(server, "POST", target, body)[1]["chunk"]]
    assert shown == [room]
    assert own not in [entry["room_id"] for entry in peer.send(server, "GET", target)[1]["chunk"]]
    here = {entry["room_id"] for entry in alice.post("publicRooms", json=body)["chunk"]}
    assert here == {room, own}


@pytest.mark.parametrize("files", ["v1", OLDER_FILES])
def test_files_are_given_to_servers(server, alice, peer, files):
    content = b"GIF89a" + bytes(50)
    answer = alice.send_raw("POST", "/_matrix/media/v3/upload", data=content, headers={"Content-Type": "text/plain"})
    media_id = answer.json()["content_uri"].rsplit("/", 1)[1]
    status, headers, body = peer.send_raw(server, "GET", path(f"{files}/media/download/{{}}", media_id))
    assert status == 200, body
    kind, boundary = headers["Content-Type"].split("; boundary=")
    parts = body.split(b"--" + boundary.strip('"').encode())
    assert kind == "multipart/mixed" and len(parts) == 4
    assert b"{}" in parts[1] and content in parts[2] and b"text/plain" in parts[2]
    headers = {"Content-Type": "image/png"}
    answer = alice.send_raw("POST", "/_matrix/media/v3/upload", data=png(100), headers=headers)
    media_id = answer.json()["content_uri"].rsplit("/", 1)[1]
    target = path(f"{files}/media/thumbnail/{{}}", media_id) + "?width=32&height=32"
    status, headers, body = peer.send_raw(server, "GET", target)
    assert status == 200 and headers["Content-Type"].startswith("multipart/mixed") and b"image/" in body
    for place in ("download", "thumbnail"):
        target = path(f"{files}/media/{place}/{{}}", "nothing") + "?width=32&height=32"
        status, answer = peer.send(server, "GET", target)
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


def test_nobody_is_bound_to_what_makes_no_sense(server, peer):
    assert peer.send(server, "PUT", path("v1/3pid/onbind"), {"medium": 5})[0] == 400


def test_keys_are_claimed_and_asked_for_as_objects(server, peer):
    for name, wrong in (("query", {"device_keys": []}), ("claim", {"one_time_keys": []})):
        assert peer.send(server, "POST", path(f"v1/user/keys/{name}"), wrong)[0] == 400


def test_where_the_server_is_found(tmp_path):
    file = "/.well-known/matrix/server"
    with Server(tmp_path / "data", "--well-known-server", "matrix.here.test:443") as server:
        answer = requests.get(server.base_url + file, timeout=60)
        assert answer.json() == {"m.server": "matrix.here.test:443"}
        specification.note_answer("GET", file, answer.status_code)


def test_a_server_that_is_found_under_its_name(server):
    file = "/.well-known/matrix/server"
    answer = requests.get(server.base_url + file, timeout=60)
    assert (answer.status_code, answer.json()["errcode"]) == (404, "M_NOT_FOUND")
    specification.note_answer("GET", file, answer.status_code)


# Endpoints that take nothing which could be wrong, or only a token, as 401 says.
NEVER_REFUSE = {"getVersion", "getServerKey", "exchangeOpenIdToken"}
# There is no question of a kind that the specification does not name.
NEVER_ANSWER = {"queryInfo"}


def test_every_endpoint_for_servers_is_served():
    assert served.missing("federation") == []


@pytest.mark.last
def test_every_endpoint_for_servers_was_asked_rightly_and_wrongly():
    lacking = served.lacking(specification.SERVERS, NEVER_REFUSE, NEVER_ANSWER)
    assert not lacking, "all of tests/federation must run together\n" + "\n".join(lacking)
