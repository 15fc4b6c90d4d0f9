"""What servers tell each other beside the events of rooms: messages to devices, changes of devices, who has read what."""

from harness.client import timeline
from harness.deliveries import send_to_device
from harness.rooms import read_by


def device_keys(client):
    """The keys of a client's device, which nobody looks into."""
    algorithms = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]
    keys = {f"{kind}:{client.device_id}": "A" * 43 for kind in ("curve25519", "ed25519")}
    own = {"user_id": client.user_id, "device_id": client.device_id, "algorithms": algorithms, "keys": keys}
    return {**own, "signatures": {client.user_id: {f"ed25519:{client.device_id}": "B" * 86}}}


def devices_of(reader, doer):
    """The devices of a user that have keys, as another one's server knows them."""
    found = reader.post("keys/query", json={"device_keys": {doer.user_id: []}})
    return set(found["device_keys"].get(doer.user_id, {}))


def receipt(client, room, event_id, type="m.read", **body):
    client.post("rooms/{roomId}/receipt/{receiptType}/{eventId}", room, type, event_id, json=body)


def tell_beside(doer, readers, room, event_id):
    """A message to a device of each reader, a new device, and a receipt for an event of the room. Answers with what each of the
    readers hears of it, who have not synced since."""
    send_to_device(doer, {reader.user_id: {reader.device_id: {"event": event_id}} for reader in readers})
    device = doer.login()
    device.post("keys/upload", json={"device_keys": device_keys(device)})
    receipt(doer, room, event_id)
    return [Heard(reader, device, room, event_id) for reader in readers]


class Heard:
    """What a client's syncs say of what was told beside events, and the events of the room."""

    def __init__(self, reader, device, room, event_id):
        self.reader, self.device, self.room, self.event_id = reader, device, room, event_id
        self.messages, self.has_changed, self.has_read, self.events = [], False, False, []

    def look(self, answer):
        """Takes note of an answer. Whether all has come by now."""
        doer = self.device.user_id
        events = answer.get("to_device", {}).get("events", [])
        self.messages += [event["content"] for event in events if event["sender"] == doer]
        self.has_changed |= doer in answer.get("device_lists", {}).get("changed", [])
        self.has_read |= doer in read_by(answer, self.room, self.event_id)
        self.events += timeline(answer, self.room)
        return bool(self.messages) and self.has_changed and self.has_read

    def check(self):
        """When all has come: the message came once, and the device is known."""
        self.look(self.reader.sync())
        assert self.messages == [{"event": self.event_id}]
        assert self.device.device_id in devices_of(self.reader, self.device)
