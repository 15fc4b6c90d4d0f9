"""Whose devices are followed as users of several servers come together and go apart (server-server API, "Device Management")."""

import base64
import itertools
import json
import os
import threading

import pytest

from harness.client import Client
from harness.events import id_of
from harness.omitting import Omitting
from harness.participant import SECONDS_MAX, Participant, path
from harness.peer import now_ms
from harness.rooms import see, via
from harness.waiting import until

UPDATE = "m.device_list_update"
# Sooner than a server that keeps its answer back is given up.
SOON = 9


def key():
    return base64.b64encode(os.urandom(32)).decode().rstrip("=")


def device_keys(user_id, device):
    return {
        "user_id": user_id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"curve25519:{device}": key(), f"ed25519:{device}": key()},
        "signatures": {user_id: {f"ed25519:{device}": base64.b64encode(os.urandom(64)).decode().rstrip("=")}},
    }


def with_keys(user):
    user.post("keys/upload", json={"device_keys": device_keys(user.user_id, user.device_id)})
    return user


@pytest.fixture
def alice(nobody):
    return with_keys(nobody.register("alice"))


def test_a_server_learns_of_the_devices_of_who_comes_into_its_rooms(server, alice, resident):
    carol = alice.register("carol")
    rooms = [carol.create_room(preset="public_chat") for _ in range(2)]
    for room in rooms:
        resident.join(server, room)
    alice.join(rooms[0])
    resident.until(lambda: resident.edus(UPDATE))
    alice.join(rooms[1])
    carol.send(rooms[1], "the last")
    resident.until(lambda: resident.bodies[-1:] == ["the last"])
    (update,) = resident.edus(UPDATE)
    assert (update["user_id"], update["device_id"]) == (alice.user_id, alice.device_id)
    # It asks for all of them then, and goes on from what it is told.
    devices = resident.ask(server, "GET", path("v1/user/devices/{}", alice.user_id))
    assert [row["device_id"] for row in devices["devices"]] == [alice.device_id]
    alice.put("devices/{deviceId}", alice.device_id, json={"display_name": "Den"})
    resident.until(lambda: len(resident.edus(UPDATE)) == 2)
    change = resident.edus(UPDATE)[1]
    assert (change["device_display_name"], change["prev_id"]) == ("Den", [devices["stream_id"]])


def test_who_comes_back_is_told_of_to_the_servers_that_are_there_now(server, alice, resident, network):
    """Not to those that were there when this server left the room."""
    gone, new = network.peer(kind=Participant), network.peer(kind=Participant)
    for peer in (gone, new):
        peer.share(resident)
    copy = resident.create()

    def member(peer, membership):
        peer.next(copy, "m.room.member", {"membership": membership}, sender=peer.user(), state_key=peer.user())

    member(gone, "join")
    alice.join(copy.room_id, query=via(resident))
    gone.until(lambda: gone.edus(UPDATE))
    alice.leave(copy.room_id)
    for peer in (gone, resident):
        peer.until(lambda: peer.pdus and peer.pdus[-1]["content"].get("membership") == "leave")
    resident.take(copy, resident.pdus[-1])
    member(gone, "leave")
    member(new, "join")
    before = len(gone.tries)
    alice.join(copy.room_id, query=via(resident))
    new.until(lambda: new.edus(UPDATE))
    (update,) = new.edus(UPDATE)
    assert (update["user_id"], update["device_id"]) == (alice.user_id, alice.device_id)
    alice.send(copy.room_id, "hello")
    for peer in (new, resident):
        peer.until(lambda: peer.bodies == ["hello"])
    assert len(gone.tries) == before
    gone.close()
    new.close()


def test_devices_without_keys_are_told_of(server, nobody, resident):
    dora = nobody.register("dora")
    resident.join(server, dora.create_room(preset="public_chat"))
    phone = dora.login(initial_device_display_name="Phone")
    resident.until(lambda: len(resident.edus(UPDATE)) == 1)
    phone.put("devices/{deviceId}", phone.device_id, json={"display_name": "Den"})
    resident.until(lambda: len(resident.edus(UPDATE)) == 2)
    phone.post("logout")
    resident.until(lambda: len(resident.edus(UPDATE)) == 3)
    updates = new, renamed, gone = resident.edus(UPDATE)
    assert {(update["user_id"], update["device_id"]) for update in updates} == {(dora.user_id, phone.device_id)}
    assert [update.get("device_display_name") for update in updates] == ["Phone", "Den", None]
    assert [update.get("deleted") for update in updates] == [None, None, True]
    assert not any("keys" in update for update in updates)
    assert (renamed["prev_id"], gone["prev_id"]) == ([new["stream_id"]], [renamed["stream_id"]])


def test_what_devices_are_called_is_told_to_no_other_server_by_default(warren, resident):
    """Telephones are called after those whom they belong to; and any server may ask, whether it shares a room or not."""
    erin = Client(warren.base_url).register("erin")
    keys = device_keys(erin.user_id, erin.device_id)
    erin.post("keys/upload", json={"device_keys": keys})
    erin.put("devices/{deviceId}", erin.device_id, json={"display_name": "Erin's telephone"})
    user, query = erin.user_id, {"device_keys": {erin.user_id: []}}
    for shares_room in (False, True):
        if shares_room:
            resident.join(warren, erin.create_room(preset="public_chat"))
            erin.put("devices/{deviceId}", erin.device_id, json={"display_name": "Erin's own telephone"})
            resident.until(lambda: resident.edus(UPDATE))
        (device,) = resident.ask(warren, "GET", path("v1/user/devices/{}", user))["devices"]
        assert device["keys"]["keys"] == keys["keys"]
        asked = resident.ask(warren, "POST", path("v1/user/keys/query"), query)
        assert asked["device_keys"][user][erin.device_id]["keys"] == keys["keys"]
        assert "telephone" not in json.dumps([device, asked, resident.edus(UPDATE)])
    # Users of this server are told.
    own = erin.post("keys/query", json=query)["device_keys"][user][erin.device_id]
    assert own["unsigned"] == {"device_display_name": "Erin's own telephone"}


def test_users_learn_of_who_comes_into_sight_and_goes(server, alice, resident):
    bob = resident.user()
    listed = {"user_id": bob, "stream_id": 5, "devices": [{"device_id": "B", "keys": device_keys(bob, "B")}]}
    resident.answers[path("v1/user/devices/{}", bob)] = lambda _: (200, listed)
    told = {"device_keys": {bob: {"B": listed["devices"][0]["keys"]}}}
    resident.answers[path("v1/user/keys/query")] = lambda _: (200, told)
    room = alice.create_room(preset="public_chat")
    alice.sync()
    copy = resident.join(server, room)
    assert alice.sync_until(lambda answer: answer.get("device_lists"))["changed"] == [bob]
    found = alice.post("keys/query", json={"device_keys": {bob: []}})["device_keys"][bob]
    assert found["B"]["keys"] == listed["devices"][0]["keys"]["keys"]
    resident.leave(server, copy)
    assert alice.sync_until(lambda answer: answer.get("device_lists"))["left"] == [bob]
    # Nobody tells of changes any more, so that the server is asked each time.
    resident.requests.clear()
    alice.post("keys/query", json={"device_keys": {bob: []}})
    assert len(resident.asked(path("v1/user/keys/query"))) == 1


def test_a_user_without_a_list_keeps_no_other_of_their_server_from_being_followed(server, alice, resident):
    carl, dora = resident.user("carl"), resident.user("dora")
    missing = {"errcode": "M_NOT_FOUND", "error": "There is no such user"}
    resident.answers[path("v1/user/devices/{}", carl)] = lambda _: (404, missing)
    listed = {"user_id": dora, "stream_id": 5, "devices": [{"device_id": "D", "keys": device_keys(dora, "D")}]}
    resident.answers[path("v1/user/devices/{}", dora)] = lambda _: (200, listed)
    resident.answers[path("v1/user/keys/query")] = lambda _: (200, {"device_keys": {}})
    room = alice.create_room(preset="public_chat")
    for user in (carl, dora):
        resident.join(server, room, user)
    alice.sync()
    # From now on they are followed, Carl first.
    alice.post("keys/query", json={"device_keys": {carl: [], dora: []}})
    assert alice.sync_until(lambda answer: answer.get("device_lists"))["changed"] == [dora]
    assert resident.asked(path("v1/user/devices/{}", carl))


def lists(resident, user, stream_id, *devices):
    """Lets the user have these devices from now on, by name, with their keys."""
    devices = [{"device_id": device, "keys": device_keys(user, device)} for device in devices]
    listed = {"user_id": user, "stream_id": stream_id, "devices": devices}
    resident.answers[path("v1/user/devices/{}", user)] = lambda _: (200, listed)


def known(alice, user):
    return set(alice.post("keys/query", json={"device_keys": {user: []}})["device_keys"].get(user, {}))


@pytest.mark.parametrize("is_placeholder", [True, False])
def test_new_devices_of_a_server_that_counts_otherwise_are_noticed(server, alice, resident, is_placeholder):
    bob = resident.user()
    lists(resident, bob, 5, "B")
    resident.answers[path("v1/user/keys/query")] = lambda _: (200, {"device_keys": {}})
    resident.join(server, alice.create_room(preset="public_chat"))
    until(lambda: known(alice, bob) == {"B"})
    # What Conduit and those that come of it send whatever happened, or a server that was restored from a copy.
    placeholder = {"device_id": "dummy", "device_display_name": "Dummy", "stream_id": 1, "prev_id": []}
    restored = {"device_id": "C", "stream_id": 2, "prev_id": [1], "keys": device_keys(bob, "C")}
    change = placeholder if is_placeholder else restored
    for number, devices in enumerate(("BC", "BCD"), start=2):
        alice.sync()
        lists(resident, bob, number, *devices)
        resident.transact(server, edus=[{"edu_type": UPDATE, "content": {"user_id": bob, **change}}])
        assert alice.sync_until(lambda answer: answer.get("device_lists"))["changed"] == [bob]
        until(lambda: known(alice, bob) == set(devices))


def test_a_list_is_asked_for_where_a_restored_server_tells_of_a_device_without_keys(server, alice, resident):
    """It has lost a device, and tells of a new one before that has keys, at a position that it had been at before."""
    bob = resident.user()
    lists(resident, bob, 52, "B", "LOST")
    resident.answers[path("v1/user/keys/query")] = lambda _: (200, {"device_keys": {}})
    resident.join(server, alice.create_room(preset="public_chat"))
    until(lambda: known(alice, bob) == {"B", "LOST"})
    lists(resident, bob, 52, "B")
    update = {"user_id": bob, "device_id": "NEW", "stream_id": 52, "prev_id": [48]}
    resident.transact(server, edus=[{"edu_type": UPDATE, "content": update}])
    until(lambda: known(alice, bob) == {"B"})


def test_a_slow_server_holds_up_nobody_elses_lists(server, alice, resident, network):
    slow, may_tell = network.peer(kind=Participant), threading.Event()

    def hold_back(_):
        may_tell.wait(SECONDS_MAX)
        return 404, {"errcode": "M_NOT_FOUND", "error": "There is no such user"}

    users, bob = [slow.user(f"u{number}") for number in range(10)], resident.user()
    slow.answers |= {path("v1/user/devices/{}", user): hold_back for user in users}
    for peer in (slow, resident):
        peer.answers[path("v1/user/keys/query")] = lambda _: (200, {"device_keys": {}})
    lists(resident, bob, 5, "B")
    room = alice.create_room(preset="public_chat")
    for user in users:
        slow.join(server, room, user)
    resident.join(server, room)
    alice.post("keys/query", json={"device_keys": {user: [] for user in users}})
    until(lambda: any("v1/user/devices" in request.target for request in slow.requests))
    until(lambda: known(alice, bob) == {"B"}, SOON)
    may_tell.set()


@pytest.mark.parametrize("resident_kind", [Omitting])
def test_servers_that_may_be_in_a_room_learn_of_all_who_come_in_before_it_is_known(alice, resident, neighbour):
    """Who is in the room is not told yet, but which servers are."""
    copy, carol = resident.create(), with_keys(alice.register("carol"))
    neighbour.come(copy, neighbour.user())
    for user in (alice, carol):
        user.join(copy.room_id, query=via(resident))
        neighbour.until(lambda: user.user_id in [update["user_id"] for update in neighbour.edus(UPDATE)])


def test_who_was_out_of_all_rooms_unseen_is_asked_about_anew(server, alice, resident):
    """Their server told nobody here of their devices meanwhile. That they were out is not seen: what is missing nobody tells, and by
    the state that is told they are in the room, though by another join."""
    bob, copy = resident.user("bob"), resident.create()
    # Of a leave and a join that have the same time, state resolution takes the one with the greater id.
    times = itertools.count(now_ms())

    def member(membership, **content):
        content["membership"] = membership
        time = next(times)
        return resident.next(copy, "m.room.member", content, sender=bob, state_key=bob, origin_server_ts=time)

    member("join")
    lists(resident, bob, 5, "OLD")
    resident.answers[path("v1/user/keys/query")] = lambda _: (200, {"device_keys": {}})
    alice.join(copy.room_id, query=via(resident))
    until(lambda: known(alice, bob) == {"OLD"})
    alice.sync()
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    member("leave")
    lists(resident, bob, 9, "NEW")
    member("join")
    resident.transact(server, [resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": "again"})])
    assert alice.sync_until(lambda answer: answer.get("device_lists"))["changed"] == [bob]
    until(lambda: known(alice, bob) == {"NEW"})
    # Who is only called otherwise was there all the time: nobody is asked, who would tell of no device.
    alice.sync()
    renamed = member("join", displayname="Bob")
    resident.transact(server, [renamed])
    see(alice, copy.room_id, id_of(renamed))
    assert known(alice, bob) == {"NEW"}


def test_a_server_that_was_restored_from_a_copy_asks_for_devices_anew(warren, resident, tmp_path):
    """What it was told since the copy was made is gone, and nobody tells it again."""
    alice, bob, copy = with_keys(Client(warren.base_url).register("alice")), resident.user(), tmp_path / "copy"
    lists(resident, bob, 5, "OLD")
    resident.answers[path("v1/user/keys/query")] = lambda _: (200, {"device_keys": {}})
    resident.join(warren, alice.create_room(preset="public_chat"))
    until(lambda: known(alice, bob) == {"OLD"})
    warren.keep_copy(copy)
    lists(resident, bob, 6, "NEW")
    update = {"user_id": bob, "device_id": "NEW", "stream_id": 6, "prev_id": []}
    resident.transact(warren, edus=[{"edu_type": UPDATE, "content": update}])
    until(lambda: known(alice, bob) == {"NEW"})
    alice.sync()
    warren.restore(copy)
    assert known(alice, bob) == {"OLD"}
    # Her token is the first that tells of it.
    alice.sync()
    until(lambda: known(alice, bob) == {"NEW"})
