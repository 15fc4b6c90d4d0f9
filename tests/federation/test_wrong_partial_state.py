"""A room was joined without its members, and somebody who had left it seemed to be there: what was made of that is put right
once the members are known."""

import threading

import pytest

from harness.client import address
from harness.participant import SECONDS_MAX, Participant, id_of, path
from harness.rooms import LAZY, joined_members, state_ids, via
from harness.waiting import until

UPDATE = "m.device_list_update"
QUERY = path("v1/user/keys/query")


class Resident(Participant):
    """Leaves members out of its answers to joins, and tells the state before these only when a test lets it."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.joins, self.may_tell = set(), threading.Event()

    def answer_send_join(self, values, query, body):
        status, answer = super().answer_send_join(values, query, body)
        self.joins.add(id_of(body))
        state = [event for event in answer["state"] if event["type"] != "m.room.member"]
        return status, {**answer, "state": state, "members_omitted": True, "servers_in_room": [self.name]}

    def answer_state(self, values, query, body):
        self.wait_if_join(query["event_id"])
        return super().answer_state(values, query, body)

    def answer_state_ids(self, values, query, body):
        self.wait_if_join(query["event_id"])
        return super().answer_state_ids(values, query, body)

    def wait_if_join(self, event_id):
        if event_id in self.joins:
            self.may_tell.wait(SECONDS_MAX)

    def come_and_go(self, copy, user):
        """The join of who has left the room again."""
        join = self.come(copy, user)
        self.next(copy, "m.room.member", {"membership": "leave"}, sender=user, state_key=user)
        return join

    def turn_out(self, copy, join, membership, target):
        """What who has left makes of another's membership. It changes no state, and others follow it."""
        keys = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", target)]
        allowing = [*(copy.state[key] for key in keys), id_of(join)]
        content = {"membership": membership}
        event = self.event(copy, "m.room.member", content, sender=join["sender"], state_key=target, auth_events=allowing)
        copy.ends, copy.depth = [id_of(event)], event["depth"]
        return event

    def let_in(self, copy, user, other):
        """Another server's user comes into the room."""
        join = other.sign(self.template(copy.room_id, user, "join")[1]["event"])
        self.take(copy, join)
        return join

    def close(self):
        self.may_tell.set()
        super().close()


@pytest.fixture
def resident_kind():
    return Resident


@pytest.fixture
def other(network):
    peer = network.peer(kind=Participant)
    yield peer
    peer.close()


def is_shown(client, copy, event):
    found = client.send_raw("GET", address("rooms/{roomId}/event/{eventId}", copy.room_id, id_of(event)))
    return found.status_code == 200


def tell(resident, server, client, copy, event):
    """Sends an event, and waits until the client is shown it."""
    resident.transact(server, [event])
    until(lambda: is_shown(client, copy, event))


def tell_in_vain(resident, server, client, copy, event):
    """Sends an event that the server refuses, as what follows it shows."""
    resident.transact(server, [event])
    tell(resident, server, client, copy, resident.place(copy, resident.message(copy)))
    assert not is_shown(client, copy, event)


def test_what_somebody_did_who_seemed_to_be_turned_out_is_part_of_the_room(server, alice, resident):
    copy, derek, elsie = resident.create(), resident.user("derek"), resident.user("elsie")
    levels = {"users": {copy.user: 100, derek: 100, elsie: 50}}
    resident.next(copy, "m.room.power_levels", levels, state_key="")
    join = resident.come_and_go(copy, derek)
    resident.come(copy, elsie)
    alice.join(copy.room_id, query=via(resident))
    kick = resident.turn_out(copy, join, "leave", elsie)
    tell(resident, server, alice, copy, kick)
    note = resident.next(copy, "org.example.note", {"body": "still here"}, sender=elsie, state_key="")
    tell_in_vain(resident, server, alice, copy, note)
    resident.may_tell.set()
    until(lambda: is_shown(alice, copy, note))
    assert not is_shown(alice, copy, kick)
    assert joined_members(alice, copy.room_id) == {copy.user, elsie, alice.user_id}
    assert alice.state(copy.room_id, "org.example.note") == {"body": "still here"}
    assert state_ids(alice, copy.room_id) == set(copy.state.values())


def changed(answer, what="changed"):
    return answer.get("device_lists", {}).get(what, [])


def test_who_was_turned_out_by_somebody_who_seemed_to_be_banned_is_followed_no_more(server, alice, resident):
    copy = resident.create()
    derek, elsie, fred = map(resident.user, ("derek", "elsie", "fred"))
    levels = {"users": {copy.user: 100, derek: 50, fred: 100}}
    resident.next(copy, "m.room.power_levels", levels, state_key="")
    resident.come(copy, derek)
    join = resident.come_and_go(copy, fred)
    listed = {"user_id": elsie, "stream_id": 5, "devices": []}
    resident.answers[path("v1/user/devices/{}", elsie)] = lambda _: (200, listed)
    resident.answers[QUERY] = lambda _: (200, {"device_keys": {elsie: {}}})

    def asks():
        """Whether the server asks for Elsie's keys, instead of answering from what it has."""
        before = len(resident.asked(QUERY))
        alice.post("keys/query", json={"device_keys": {elsie: []}})
        return len(resident.asked(QUERY)) > before

    alice.join(copy.room_id, query=via(resident))
    alice.sync(filter=LAZY)
    resident.transact(server, [resident.come(copy, elsie)])
    alice.sync_until(lambda answer: elsie in changed(answer), seconds=SECONDS_MAX, filter=LAZY)
    # Whose keys are asked for is followed from then on.
    assert asks()
    alice.sync_until(lambda answer: elsie in changed(answer), seconds=SECONDS_MAX, filter=LAZY)
    until(lambda: not asks())
    ban = resident.turn_out(copy, join, "ban", derek)
    tell(resident, server, alice, copy, ban)
    kick = resident.next(copy, "m.room.member", {"membership": "leave"}, sender=derek, state_key=elsie)
    tell_in_vain(resident, server, alice, copy, kick)
    alice.sync(filter=LAZY)
    resident.may_tell.set()
    alice.sync_until(lambda answer: elsie in changed(answer, "left"), seconds=SECONDS_MAX, filter=LAZY)
    assert is_shown(alice, copy, kick) and not is_shown(alice, copy, ban)
    assert asks()
    assert state_ids(alice, copy.room_id) == set(copy.state.values())


def rename_device(client, name):
    client.put("devices/{deviceId}", client.device_id, json={"display_name": name})


def test_a_server_that_was_left_out_is_told_of_devices_when_it_is_found(server, alice, resident, other):
    copy = resident.create()
    resident.let_in(copy, other.user(), other)
    alice.join(copy.room_id, query=via(resident))
    rename_device(alice, "Den")
    resident.until(lambda: "Den" in [update.get("device_display_name") for update in resident.edus(UPDATE)])
    assert not other.edus(UPDATE)
    resident.may_tell.set()
    other.until(lambda: other.edus(UPDATE))
    (update,) = other.edus(UPDATE)
    assert (update["user_id"], update["device_display_name"]) == (alice.user_id, "Den")


def names(peer):
    """The names of devices that a peer was told, in turn."""
    return [update.get("device_display_name") for update in peer.edus(UPDATE)]


def test_a_server_whose_user_seemed_to_be_turned_out_is_told_what_it_missed(server, alice, resident, other):
    copy, derek, elsie = resident.create(), resident.user("derek"), other.user("elsie")
    resident.next(copy, "m.room.power_levels", {"users": {copy.user: 100, derek: 100}}, state_key="")
    join = resident.come_and_go(copy, derek)
    alice.join(copy.room_id, query=via(resident))
    tell(resident, server, alice, copy, resident.let_in(copy, elsie, other))
    rename_device(alice, "Den")
    other.until(lambda: "Den" in names(other))
    tell(resident, server, alice, copy, resident.turn_out(copy, join, "leave", elsie))
    rename_device(alice, "Loft")
    resident.until(lambda: "Loft" in names(resident))
    assert "Loft" not in names(other)
    resident.may_tell.set()
    other.until(lambda: names(other)[-1] == "Loft")
