"""Events as a server makes them by hand: redacted, hashed, named by their hash, allowed by others. Room versions 11 and 12;
and invites as they were before version 3."""

import hashlib

from harness.peer import base64_of, canonical

# What a redaction leaves of an event, of one with an id of its own, and of contents by the type.
KEPT = "type room_id sender state_key content hashes signatures depth prev_events auth_events origin_server_ts".split()
KEPT_BEFORE = [*KEPT, "event_id", "prev_state", "origin", "membership"]
KEPT_OF_CONTENT = {
    "m.room.member": ["membership", "join_authorised_via_users_server"],
    "m.room.join_rules": ["join_rule", "allow"],
    "m.room.history_visibility": ["history_visibility"],
    "m.room.redaction": ["redacts"],
    "m.room.power_levels": "ban events events_default invite kick redact state_default users users_default".split(),
}


def redacted(event):
    """The event as it is signed."""
    content = event["content"]
    if event["type"] != "m.room.create":
        kept = KEPT_OF_CONTENT.get(event["type"], [])
        invite = content.get("third_party_invite") if isinstance(content, dict) else None
        content = {name: content[name] for name in kept if name in content} if isinstance(content, dict) else {}
        if event["type"] == "m.room.member" and isinstance(invite, dict) and "signed" in invite:
            content["third_party_invite"] = {"signed": invite["signed"]}
    kept = KEPT_BEFORE if "event_id" in event else KEPT
    return {**{name: event[name] for name in kept if name in event}, "content": content}


def id_of(event):
    bare = {name: value for name, value in redacted(event).items() if name != "signatures"}
    return "$" + base64_of(hashlib.sha256(canonical(bare)).digest()).replace("+", "-").replace("/", "_")


def hashed(event):
    """The event with the hash of its content."""
    bare = {name: value for name, value in event.items() if name not in ("hashes", "signatures", "unsigned")}
    return {**event, "hashes": {"sha256": base64_of(hashlib.sha256(canonical(bare)).digest())}}


class Copy:
    """What a server has of a room: its state, the ends of its graph, and which user of its own acts there."""

    def __init__(self, room_id, state, ends, depth, user=None):
        self.room_id, self.state, self.ends, self.depth, self.user = room_id, dict(state), list(ends), depth, user

    def allowing(self, type, sender, state_key=None, content=None):
        """The ids of the events that allow an event."""
        keys = [("m.room.power_levels", ""), ("m.room.member", sender)]
        if ":" in self.room_id:
            # Since version 12 a room's id names the event that created it.
            keys.insert(0, ("m.room.create", ""))
        if type == "m.room.member":
            keys.append(("m.room.member", state_key))
            if (content or {}).get("membership") in ("join", "invite", "knock"):
                keys.append(("m.room.join_rules", ""))
        found = [self.state[key] for key in keys if key in self.state]
        return list(dict.fromkeys(found))


def nested(depth, kind="object"):
    """A text within so many objects or arrays."""
    value = "deep"
    for _ in range(depth):
        value = {"a": value} if kind == "object" else [value]
    return value


def signed_by(server, value):
    """All objects within a value that the server has signed."""
    if isinstance(value, dict):
        signatures = value.get("signatures")
        if isinstance(signatures, dict) and server.name in signatures:
            yield value
        for inner in value.values():
            yield from signed_by(server, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from signed_by(server, inner)
