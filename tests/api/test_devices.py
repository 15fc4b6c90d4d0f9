"""Device management (spec: Device Management)."""

import time

import pytest

from harness.client import PASSWORD


def names(client):
    """The devices of a user and their names; an empty one is none."""
    return {device["device_id"]: device.get("display_name") or None for device in client.get("devices")["devices"]}


def test_list_and_single(alice):
    other = alice.login(initial_device_display_name="Second")
    assert names(alice) == {alice.device_id: None, other.device_id: "Second"}
    assert alice.get("devices/{deviceId}", other.device_id)["device_id"] == other.device_id


@pytest.mark.ours("Synapse writes the first sighting later, and null for no name")
def test_a_device_that_has_just_logged_in_is_told_of_in_full(nobody):
    # matrix-nio reads no list of devices in which one of these is missing.
    user = nobody.register()
    other = user.login()
    devices = other.get("devices")["devices"]
    assert {device["device_id"] for device in devices} == {user.device_id, other.device_id}
    for device in devices:
        assert device["display_name"] == ""
        assert device["last_seen_ip"] == "127.0.0.1"
        assert abs(time.time() - device["last_seen_ts"] / 1000) < 60


def test_rename(alice):
    alice.put("devices/{deviceId}", alice.device_id, json={"display_name": "Den"})
    assert names(alice)[alice.device_id] == "Den"


def test_unknown_devices(alice, bob):
    for device in ("NOWHERE", bob.device_id):
        alice.get("devices/{deviceId}", device, status=404, errcode="M_NOT_FOUND")
        alice.put("devices/{deviceId}", device, json={"display_name": "x"}, status=404, errcode="M_NOT_FOUND")


def test_delete_one(alice):
    other = alice.login()
    alice.with_password("DELETE", "devices/{deviceId}", other.device_id)
    assert list(names(alice)) == [alice.device_id]
    other.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")


def test_delete_several(alice):
    others = [alice.login(), alice.login()]
    alice.with_password("POST", "delete_devices", json={"devices": [other.device_id for other in others]})
    assert list(names(alice)) == [alice.device_id]
    for other in others:
        other.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")


def password_of(user, session):
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": PASSWORD, "session": session}


def test_a_deletion_that_is_sent_again_is_answered_as_it_was(alice):
    """Specification: "servers must return [...] the result of the API call [...] when a client retries a stage"."""
    gone, kept = alice.login().device_id, alice.login().device_id
    auth = password_of(alice, alice.delete("devices/{deviceId}", gone, json={}, status=401)["session"])
    for again in (auth, auth, {"session": auth["session"]}):
        assert alice.delete("devices/{deviceId}", gone, json={"auth": again}) == {}
    alice.delete("devices/{deviceId}", kept, json={"auth": auth}, status=403)
    assert kept in names(alice)


def test_a_deletion_goes_on_with_the_body_that_began_it(alice):
    """Specification: "it should resubmit the request with an auth dict with just the session ID"."""
    gone = alice.login().device_id
    session = alice.post("delete_devices", json={"devices": [gone]}, status=401)["session"]
    alice.post("delete_devices", json={"auth": {"session": session}}, status=401)
    only = {"auth": password_of(alice, session)}
    assert alice.post("delete_devices", json=only) == {}
    assert list(names(alice)) == [alice.device_id]
    assert alice.post("delete_devices", json=only) == {}


@pytest.mark.ours("Synapse deletes it again")
def test_a_deletion_that_is_sent_again_is_done_once(alice):
    gone = alice.login().device_id
    body = {"devices": [gone]}
    auth = password_of(alice, alice.post("delete_devices", json=body, status=401)["session"])
    assert alice.post("delete_devices", json={**body, "auth": auth}) == {}
    alice.login(device_id=gone)
    assert alice.post("delete_devices", json={**body, "auth": auth}) == {}
    assert gone in names(alice)
    more = {"devices": [gone, alice.device_id], "auth": auth}
    alice.post("delete_devices", json=more, status=403, errcode="M_FORBIDDEN")


def test_delete_needs_ones_own_password(alice, bob):
    other = alice.login()
    wanted = alice.delete("devices/{deviceId}", other.device_id, json={}, status=401)
    auth = password_of(bob, wanted["session"])
    answer = alice.delete("devices/{deviceId}", other.device_id, json={"auth": auth}, status=(401, 403))
    assert answer["errcode"] == "M_FORBIDDEN"
    assert other.device_id in names(alice)
