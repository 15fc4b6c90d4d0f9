"""Keys that the operator never trusts: those of one server, by its name and the key's id, and those that are called so anywhere.

The class of fault: leaked keys, with which whoever has them speaks and acts in their server's name.
"""

import pytest

from harness.client import bodies
from harness.events import id_of
from harness.participant import Participant
from harness.peer import Key
from harness.rooms import joined_members
from harness.senders import room_messages
from harness.server import sound

LIST = "/_matrix/federation/v1/publicRooms"
# The versions of the keys that each of both servers has and publishes.
VERSIONS = ("good", "leaked_there", "leaked_everywhere")
# Whose key counts for nothing.
LEAKED, OTHER = {"leaked_there", "leaked_everywhere"}, {"leaked_everywhere"}


class Owner(Participant):
    """Publishes several keys."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.keys = {version: Key(version) for version in VERSIONS}
        self.key = self.keys["good"]
        self.changes["verify_keys"] = {key.id: {"key": key.public} for key in self.keys.values()}


@pytest.fixture(scope="module")
def owners(network):
    """The server whose key has leaked, and another."""
    return [network.peer(kind=Owner) for _ in range(2)]


@pytest.fixture(scope="module")
def server(network, owners, tmp_path_factory):
    options = ["--never-trust-keys", f"{owners[0].name}:ed25519:leaked_there", "--never-trust-keys", "ed25519:leaked_everywhere"]
    with sound(network.server(tmp_path_factory.mktemp("leaked"), *options)) as server:
        yield server


@pytest.fixture(params=[0, 1], ids=["the server named", "another"])
def owner(request, owners):
    return owners[request.param]


@pytest.fixture
def leaked(owner, owners):
    return LEAKED if owner is owners[0] else OTHER


@pytest.mark.parametrize("version", VERSIONS)
def test_requests(server, owner, leaked, version):
    status, answer = owner.send(server, "GET", LIST, key=owner.keys[version])
    assert (status, answer.get("errcode")) == ((401, "M_UNAUTHORIZED") if version in leaked else (200, None))


@pytest.mark.parametrize("version", VERSIONS)
def test_events(server, owner, owners, leaked, alice, version):
    """Whoever brings them: it is the sender's server that signs."""
    room = alice.create_room(preset="public_chat", room_version="11")
    copy, *_ = [peer.join(server, room) for peer in sorted(owners, key=lambda peer: peer is not owner)]
    event = owner.message(copy, "hello", key=owner.keys[version])
    for bringing in owners:
        results = bringing.transact(server, [event])
        assert ("error" in results[id_of(event)]) == (version in leaked), results
        assert bodies(room_messages(alice, room)) == ([] if version in leaked else ["hello"])


@pytest.mark.parametrize("version", VERSIONS)
def test_joins_and_invites(server, owner, leaked, alice, version):
    """They come by themselves, in a request that a good key has signed."""
    room = alice.create_room(preset="public_chat", room_version="11")
    user = owner.user(version)
    join = owner.sign({**owner.make_join(server, room, user), "signatures": {}}, owner.keys[version])
    status, answer = owner.send_join(server, join)
    assert status in ((400, 403) if version in leaked else (200,)), answer
    assert (user in joined_members(alice, room)) == (version not in leaked)
    copy = owner.create("invite")
    status, answer = owner.invite(server, copy, alice.user_id, key=owner.keys[version])
    assert status in ((400, 403) if version in leaked else (200,)), answer
    assert (server.name in answer.get("event", {}).get("signatures", {})) == (version not in leaked)


@pytest.mark.parametrize("version", VERSIONS)
def test_state_that_is_told(server, owner, leaked, alice, version):
    """Of a room that a user comes into, what such a key has signed is left out."""
    copy = owner.create()
    topic = owner.event(copy, "m.room.topic", {"topic": "told"}, state_key="", key=owner.keys[version])
    owner.place(copy, topic)
    owner.next(copy, "m.room.name", {"name": "last"}, state_key="")
    alice.join(copy.room_id, query={"via": owner.name})
    wanted = {"status": 404} if version in leaked else {}
    alice.state(copy.room_id, "m.room.topic", **wanted)
    assert alice.state(copy.room_id, "m.room.name") == {"name": "last"}
