"""Policy servers of rooms (server-server API, "Policy Servers"): hand-written ones, and Warrens that go by a list."""

import json

from harness.client import Client, unique
from harness.peer import Key

SIGN = "/_matrix/policy/v1/sign"
FILE = "/.well-known/matrix/policy_server"
POLICY_KEY = "ed25519:policy_server"


def signs(peer):
    """Lets a participant sign what does not say spam. Answers it."""
    peer.policy_key = Key("policy_server")

    def sign(request):
        event = json.loads(request.body)
        if "spam" in json.dumps(event["content"]):
            return 400, {"errcode": "M_FORBIDDEN", "error": "The message appears to contain possible spam"}
        signatures = peer.sign(event, peer.policy_key)["signatures"][peer.name]
        return 200, {peer.name: {POLICY_KEY: signatures[POLICY_KEY]}}

    peer.answers[SIGN] = sign
    return peer


def enable(alice, room_id, policy):
    keys = {"ed25519": policy.policy_key.public}
    alice.set_state(room_id, "m.room.policy", {"via": policy.name, "public_keys": keys})


def protect(owner, room_id, server):
    """Lets a Warren be the policy server of a room that a user of it owns. Answers what the room says then."""
    content = {"via": server.name, "public_keys": owner.get(FILE)["public_keys"]}
    owner.set_state(room_id, "m.room.policy", content)
    return content


class PolicyList:
    """A moderation policy list, in a room of its own."""

    def __init__(self, owner):
        self.owner, self.room_id = owner, owner.create_room(preset="public_chat")

    def ban(self, subject, entity):
        """Bans a user, server or room. Answers how to take that back."""
        type, key = f"m.policy.rule.{subject}", unique("rule")
        content = {"entity": entity, "recommendation": "m.ban", "reason": "spam"}
        self.owner.set_state(self.room_id, type, content, key)
        return lambda: self.owner.set_state(self.room_id, type, {}, key)


def with_list(server):
    """Starts a policy server anew that goes by a list from then on, which it answers."""
    found = PolicyList(Client(server.base_url).register("warden"))
    server.options += ["--policy-lists", found.room_id]
    server.restart()
    return found
