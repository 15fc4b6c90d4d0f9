"""What an identity server has signed of whose an address is stands in the room, where everybody finds it. Who shows it to the
server again, without an account and without the signature of a server, neither turns members out nor fills the room.
"""

import pytest

from harness.client import unique
from harness.participant import path
from harness.peer import Key, canonical, signed
from harness.rooms import everything, invited, state_ids

ONBIND = "/_matrix/federation/v1/3pid/onbind"
IDENTITY_SERVER = "identity.test"
# As many as are taken at once.
AT_ONCE = 20


class Proof:
    """Somebody has invited an address, and it turns out to be a user's."""

    def __init__(self, server, peer, inviter, room, user_id):
        self.server, self.peer, self.inviter, self.room, self.user_id = server, peer, inviter.user_id, room, user_id
        key, token = Key("0"), unique("token")
        url = f"https://{IDENTITY_SERVER}/_matrix/identity/v2/pubkey/isvalid"
        content = {"display_name": "b...@example.org", "key_validity_url": url, "public_key": key.public}
        inviter.set_state(room, "m.room.third_party_invite", content, key=token)
        proof = {"mxid": user_id, "sender": inviter.user_id, "token": token}
        self.signed = signed(proof, IDENTITY_SERVER, key)

    def bind(self, times=1):
        """Tells the user's server, as anybody can, so many times at once."""
        address = {"medium": "email", "address": "bob@example.org", "mxid": self.user_id}
        invite = {**address, "room_id": self.room, "sender": self.inviter, "signed": self.signed}
        body = canonical({**address, "invites": [invite] * times})
        status, _, answer = self.peer.send_raw(self.server, "PUT", ONBIND, headers=[], body=body)
        assert status == 200, answer

    def exchange(self):
        """Asks the server of who has invited, as the user's server does. Answers with status and answer."""
        event = {
            "type": "m.room.member",
            "room_id": self.room,
            "sender": self.inviter,
            "state_key": self.user_id,
            "content": {"membership": "invite", "third_party_invite": {"signed": self.signed}},
        }
        return self.peer.send(self.server, "PUT", path("v1/exchange_third_party_invite/{}", self.room), event)


@pytest.fixture
def room(alice):
    """A room that nobody comes into without an invite."""
    return alice.create_room(preset="private_chat", room_version="11")


def invites(client, room, user_id):
    """The invites of the user that came into the room."""
    members = [event for event in everything(client, room) if event["type"] == "m.room.member"]
    return [event for event in members if (event["state_key"], event["content"]["membership"]) == (user_id, "invite")]


def test_a_member_stays(server, hostile, alice, bob, room):
    proof = Proof(server, hostile, alice, room, bob.user_id)
    proof.bind()
    bob.sync_until(lambda answer: invited(answer, room))
    bob.join(room)
    before = state_ids(alice, room)
    proof.bind()
    assert state_ids(alice, room) == before
    bob.send(room, "I am still here")


def test_a_member_of_another_server_stays(server, hostile, alice, room):
    proof = Proof(server, hostile, alice, room, hostile.user())
    assert proof.exchange()[0] == 200
    hostile.join(server, room)
    before = state_ids(alice, room)
    status, answer = proof.exchange()
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    assert state_ids(alice, room) == before


def test_who_has_left_invites_nobody(server, hostile, alice, bob, room):
    alice.invite(room, bob)
    bob.join(room)
    proof = Proof(server, hostile, alice, room, hostile.user())
    alice.leave(room)
    status, answer = proof.exchange()
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    bob.state(room, "m.room.member", hostile.user(), status=404)


def test_a_user_is_invited_once_however_often_that_is_shown(server, hostile, alice, bob, room):
    proof, other = (Proof(server, hostile, alice, room, bob.user_id) for _ in range(2))
    for shown in (proof, proof, other, proof):
        shown.bind(AT_ONCE)
    assert len(invites(alice, room, bob.user_id)) == 1
    assert invited(bob.sync(), room)


def test_a_user_of_another_server_is_invited_once(server, hostile, alice, room):
    proof, other = (Proof(server, hostile, alice, room, hostile.user()) for _ in range(2))
    for shown in (proof, proof, other, proof):
        assert shown.exchange() == (200, {})
    assert len(invites(alice, room, hostile.user())) == 1
