"""A room is entered before its members are told: its user talks there at once, and the members come, also after the server
was killed meanwhile."""

import threading

import pytest

from harness.client import Client
from harness.participant import Participant, id_of
from harness.rooms import joined_members, read_by, see, state_ids, via
from harness.server import Server

MEMBERS = 30
SECONDS_MAX = 60


class Resident(Participant):
    """Leaves members out of its answers to joins, and tells them only when a test lets it."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.was_asked, self.may_tell = threading.Event(), threading.Event()

    def answer_send_join(self, values, query, body):
        status, answer = super().answer_send_join(values, query, body)
        assert query == {"omit_members": "true"}
        state = [event for event in answer["state"] if event["type"] != "m.room.member"]
        return status, {**answer, "state": state, "members_omitted": True, "servers_in_room": [self.name]}

    def answer_state(self, values, query, body):
        self.was_asked.set()
        self.may_tell.wait(SECONDS_MAX)
        return super().answer_state(values, query, body)


@pytest.fixture
def resident(network):
    peer = network.peer(kind=Resident)
    yield peer
    peer.may_tell.set()


def test_members_come_after_a_kill_in_the_middle(network, resident, tmp_path):
    copy = resident.create()
    users = [resident.user(f"member{number}") for number in range(MEMBERS)]
    for user in users:
        resident.next(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
    server = Server(tmp_path / "data", "--allow-private-addresses", "on", *network.options)
    with server:
        alice = Client(server.base_url).register("alice")
        alice.join(copy.room_id, query=via(resident))
        assert resident.was_asked.wait(SECONDS_MAX)
        # The members are not here yet; that keeps nobody from talking.
        said = alice.send(copy.room_id, "is anybody here?")
        resident.until(lambda: said in [id_of(event) for event in resident.pdus])
        told = resident.place(copy, resident.message(copy, "all of us", sender=users[3], prev_events=[said]))
        alice.sync()
        # Who is not known to be in the room yet has read what is not here yet.
        read = {"event_ids": [id_of(told)], "data": {"ts": 1}}
        receipt = {"edu_type": "m.receipt", "content": {copy.room_id: {"m.read": {users[5]: read}}}}
        resident.transact(server, edus=[receipt])
        resident.transact(server, [told])
        see(alice, copy.room_id, id_of(told))
        resident.was_asked.clear()
        server.kill()
    resident.may_tell.set()
    with server:
        alice.sync_until(lambda _: joined_members(alice, copy.room_id) == {resident.user(), alice.user_id, *users})
        assert resident.was_asked.is_set()
        alice.since = None
        alice.sync_until(lambda answer: read_by(answer, copy.room_id, id_of(told)) == {users[5]})
        assert state_ids(alice, copy.room_id) == set(copy.state.values())
        assert server.stop() == 0, server.log_tail()
        server.check()
