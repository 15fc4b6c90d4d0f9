"""A hand-written server as the policy server of rooms (server-server API, "Policy Servers")."""

import json

from harness.peer import Key

SIGN = "/_matrix/policy/v1/sign"
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
