"""A server that cannot be asked for what this one lacks is asked less and less often, and at once when it is heard from."""

import pytest

from harness.client import bodies, timeline
from harness.clock import Clock
from harness.omitting import PARTIAL_JOINS, Omitting
from harness.participant import path
from harness.rooms import joined_members, via
from harness.server import sound
from harness.waiting import until

# What passes of time at each look, and how much in all before a sign of life counts for sure: less than any pause that is left.
STEP_SECONDS, HEARD_SECONDS = 2, 14
# Less than the pauses, which are longer than a minute in all.
SOON_SECONDS = 30


class Unreachable(Omitting):
    """Is out of reach once it was asked for the members that it left out, or when a test says so: nothing answers, or a proxy does that
    stands before it."""

    has_proxy = is_down = False

    def goes(self):
        self.closes_all, self.is_down = not self.has_proxy, True

    def comes_back(self):
        self.closes_all = self.is_down = False

    def answer_to(self, request):
        if self.is_down:
            self.lost.append(request.target)
            return 502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}
        return super().answer_to(request)

    def answer_state(self, values, query, body):
        if not self.was_asked.is_set():
            self.was_asked.set()
            self.goes()
            return 503, {"errcode": "M_UNKNOWN", "error": "Not now"}
        return super().answer_state(values, query, body)


@pytest.fixture
def resident_kind():
    return Unreachable


@pytest.fixture(autouse=True, params=["nothing answers", "a proxy answers"])
def proxy(request, resident):
    resident.has_proxy = request.param == "a proxy answers"


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def warren(network, tmp_path, clock):
    server = network.server(tmp_path)
    server.environment = clock.environment
    server.admin_password = server.make_administrator("warden")
    with sound(server):
        yield server


@pytest.fixture
def passes_until(clock, nobody):
    """Lets time pass until something holds."""

    def wait(condition):
        def look():
            clock.passes(STEP_SECONDS)
            # Whoever sleeps is woken.
            nobody.get("/_matrix/client/versions")
            return condition()

        return until(look)

    return wait


def is_heard_until(peer, server, clock, condition):
    """The server, which is in reach again, sends requests until something holds; little time passes meanwhile."""
    passed = 0

    def look():
        nonlocal passed
        if passed < HEARD_SECONDS:
            clock.passes(STEP_SECONDS)
            passed += STEP_SECONDS
        assert peer.send(server, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200
        return condition()

    until(look, SOON_SECONDS)


def test_what_its_events_lack_is_asked_for(warren, clock, alice, resident, passes_until):
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(warren, room)
    resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": "missing"})
    late = resident.next(copy, "m.room.message", {"msgtype": "m.text", "body": "late"})
    resident.goes()
    resident.transact(warren, [late])

    def attempts():
        return len([target for target in resident.lost if "get_missing_events" in target])

    # The pause behind the second attempt is a minute; each may go lost twice.
    for _ in range(4):
        before = attempts()
        passes_until(lambda before=before: attempts() > before)
    resident.comes_back()
    is_heard_until(resident, warren, clock, lambda: "late" in bodies(timeline(alice.sync(), room)))


@pytest.fixture
def until_left_alone(admin, passes_until):
    """Waits until the members of the only room were asked for again and again."""

    def failed():
        return admin.get(PARTIAL_JOINS)["rooms"][0]["rounds_failed"]

    # The pause is 160 seconds then.
    return lambda: passes_until(lambda: failed() > 5)


def test_members_that_it_left_out_are_asked_for(warren, clock, admin, alice, resident, until_left_alone):
    copy = resident.create()
    resident.come(copy, resident.user("other"))
    resident.may_tell.set()
    alice.join(copy.room_id, query=via(resident))
    until_left_alone()
    resident.comes_back()
    is_heard_until(resident, warren, clock, lambda: admin.get(PARTIAL_JOINS)["total"] == 0)
    assert joined_members(alice, copy.room_id) == {resident.user(), resident.user("other"), alice.user_id}


def test_members_are_asked_first_of_who_is_heard_from(warren, clock, admin, alice, resident, neighbour, until_left_alone):
    """The one that let this server in takes questions by then, and does not answer."""
    copy, member = resident.create(), neighbour.user("member")
    room = copy.room_id
    neighbour.come(copy, member)
    neighbour.closes_all = True
    alice.join(room, query=via(resident))
    until_left_alone()
    resident.requests.clear()
    resident.comes_back()
    neighbour.closes_all = False
    is_heard_until(neighbour, warren, clock, lambda: admin.get(PARTIAL_JOINS)["total"] == 0)
    assert joined_members(alice, room) == {resident.user(), member, alice.user_id}
    assert not resident.asked(path("v1/state/{}", room))
