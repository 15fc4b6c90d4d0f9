"""Device management (spec: Device Management)."""

from harness.client import PASSWORD


def names(client):
    return {device["device_id"]: device.get("display_name") for device in client.get("devices")["devices"]}


def test_list_and_single(alice):
    other = alice.login(initial_device_display_name="Second")
    assert names(alice) == {alice.device_id: None, other.device_id: "Second"}
    assert alice.get("devices/{deviceId}", other.device_id)["device_id"] == other.device_id


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


def test_delete_needs_ones_own_password(alice, bob):
    other = alice.login()
    wanted = alice.delete("devices/{deviceId}", other.device_id, json={}, status=401)
    identifier = {"type": "m.id.user", "user": bob.user_id}
    auth = {
        "type": "m.login.password",
        "identifier": identifier,
        "password": PASSWORD,
        "session": wanted["session"],
    }
    answer = alice.delete("devices/{deviceId}", other.device_id, json={"auth": auth}, status=(401, 403))
    assert answer["errcode"] == "M_FORBIDDEN"
    assert other.device_id in names(alice)
