"""Somebody is invited by an address, and turns out to be a user of another server.

The identity server is written by hand: it signs whose an address is, tells the server of that user, and says that its keys
are good, which Synapse asks.
"""

import http.server
import threading

import pytest
import requests

from harness import specification
from harness.client import unique
from harness.federated import Synapse
from harness.peer import Key, signed
from harness.rooms import invited, joined_members, until_joined

ONBIND = "/_matrix/federation/v1/3pid/onbind"
DISPLAY_NAME = "b...@example.org"


class IdentityServer:
    name = "identity.test"

    def __init__(self, authority):
        self.key, self.authority = Key("0"), authority

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer = b'{"valid": true}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                # Synapse believes no answer of which it does not know whether it is whole.
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def store(self):
        """An invite of an address: its token, and what stands of it in the room."""
        url = f"http://127.0.0.1:{self.http.server_port}/_matrix/identity/v2/pubkey/isvalid"
        public = {"public_key": self.key.public, "key_validity_url": url}
        return unique("token"), {"display_name": DISPLAY_NAME, **public, "public_keys": [public]}

    def bind(self, server, inviter, room, token, user_id, key=None):
        """The address turns out to be a user of the server, which is told so."""
        proof = signed({"mxid": user_id, "sender": inviter.user_id, "token": token}, self.name, key or self.key)
        address = {"medium": "email", "address": "bob@example.org", "mxid": user_id}
        invite = {**address, "room_id": room, "sender": inviter.user_id, "signed": proof}
        # What the specification lists of it.
        body = {**address, "invites": [invite]}
        url = f"https://localhost:{server.federation_port}{ONBIND}"
        # The specification has both; Synapse knows one.
        methods = ["POST"] if isinstance(server, Synapse) else ["PUT", "POST"]
        answers = [requests.request(method, url, json=body, verify=str(self.authority), timeout=60) for method in methods]
        for method, answer in zip(methods, answers):
            specification.note_answer(method, ONBIND, answer.status_code)
        return {answer.status_code for answer in answers}


@pytest.fixture
def identity_server(authority):
    server = IdentityServer(authority.path)
    yield server
    server.close()


@pytest.fixture(params=["we invite", "they invite"])
def sides(request, here, there, alice, bob):
    """Who invites, who is invited, and the server of that one."""
    return (alice, bob, there) if request.param == "we invite" else (bob, alice, here)


# In the last one a room's id names no server.
@pytest.mark.parametrize("version", ["10", "12"])
def test_who_was_invited_by_an_address_comes_in(identity_server, sides, version):
    inviter, guest, server = sides
    room = inviter.create_room(preset="private_chat", room_version=version, name="The burrow")
    token, content = identity_server.store()
    inviter.set_state(room, "m.room.third_party_invite", content, key=token)
    guest.sync()
    assert identity_server.bind(server, inviter, room, token, guest.user_id) == {200}
    invite = guest.sync_until(lambda answer: invited(answer, room))
    (own,) = [event for event in invite["invite_state"]["events"] if event["state_key"] == guest.user_id]
    assert own["sender"] == inviter.user_id
    told = own["content"]["third_party_invite"]
    assert told["signed"]["mxid"] == guest.user_id and told["signed"]["token"] == token
    guest.join(room)
    until_joined(inviter, room, guest)
    until_joined(guest, room, inviter)


def test_who_has_no_proof_is_not_invited(identity_server, sides):
    inviter, guest, server = sides
    room = inviter.create_room(preset="private_chat", room_version="10")
    token, content = identity_server.store()
    inviter.set_state(room, "m.room.third_party_invite", content, key=token)
    guest.sync()
    identity_server.bind(server, inviter, room, token, guest.user_id, key=Key("0"))
    identity_server.bind(server, inviter, room, "another", guest.user_id)
    # What is asked for rightly comes behind.
    other = inviter.create_room(preset="private_chat")
    inviter.invite(other, guest)
    answer = guest.sync_until(lambda answer: invited(answer, other) and answer)
    assert not invited(answer, room)
    assert joined_members(inviter, room) == {inviter.user_id}
