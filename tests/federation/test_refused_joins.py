"""What our users are told when another server refuses them a join or a knock (client-server API, "Standard error response")."""

import pytest

from harness.participant import Participant
from harness.rooms import via

BOTH = pytest.mark.parametrize("entering", ["join", "knock"])
UNSPOKEN = "org.example.13"


def enter(alice, resident, entering, answer, **more):
    """Alice's try to come into a room of which the other server gives no template, but this answer."""
    copy = resident.create()
    resident.answer_make_join = resident.answer_make_knock = answer
    return alice.post(entering + "/{roomIdOrAlias}", copy.room_id, query=via(resident), **more)


@BOTH
def test_a_room_whose_version_is_not_spoken_here(alice, resident, entering):
    """Specification: "Inspect the `room_version` property of the error response for the room's version"."""
    code = "M_INCOMPATIBLE_ROOM_VERSION"
    refusal = {"errcode": code, "error": "It is not among yours", "room_version": UNSPOKEN}
    answer = enter(alice, resident, entering, lambda *_: (400, refusal), status=400, errcode=code)
    assert answer["room_version"] == UNSPOKEN

    def make(values, *_):
        return 200, {"room_version": UNSPOKEN, "event": resident.template(*values, entering)[1]["event"]}

    # Whoever does not compare it with ours gives a template.
    answer = enter(alice, resident, entering, make, status=400, errcode=code)
    assert answer["room_version"] == UNSPOKEN


@BOTH
@pytest.mark.parametrize("room_version", ["", "1" * 33, "A version", 11])
def test_what_can_be_no_room_version_is_not_passed_on(alice, resident, entering, room_version):
    refusal = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "No", "room_version": room_version}
    assert "room_version" not in enter(alice, resident, entering, lambda *_: (400, refusal), status=400)

    def make(values, *_):
        return 200, {"room_version": room_version, "event": resident.template(*values, entering)[1]["event"]}

    assert "room_version" not in enter(alice, resident, entering, make, status=502)


@BOTH
@pytest.mark.parametrize("code", ["M_RESOURCE_LIMIT_EXCEEDED", "ORG.EXAMPLE_BURROW_FULL"])
def test_codes_are_passed_on(alice, resident, entering, code):
    refusal = {"errcode": code, "error": "Not today"}
    assert enter(alice, resident, entering, lambda *_: (403, refusal), status=403) == refusal


@BOTH
@pytest.mark.parametrize(
    "status, code",
    [
        (403, "M_UNKNOWN_TOKEN"),
        (403, "M_MISSING_TOKEN"),
        (403, "M_USER_DEACTIVATED"),
        (403, "M_CONSENT_NOT_GIVEN"),
        (404, "M_UNRECOGNIZED"),
        (403, "NO NAME FOR IT"),
        (403, "M_" + "X" * 200),
    ],
)
def test_what_would_tell_clients_of_themselves_is_not(alice, resident, entering, status, code):
    """Of their session, their account, or an endpoint of this server."""
    refusal = {"errcode": code, "error": "Not today"}
    enter(alice, resident, entering, lambda *_: (status, refusal), status=status, errcode="M_UNKNOWN")


def test_a_room_of_a_server_that_is_gone_with_its_keys(alice, resident, network):
    """The server that the room is called after is asked last; that it does not answer is not the reason."""
    founder = network.peer(kind=Participant)
    copy = founder.create()
    resident.know(*founder.events.values())
    resident.before |= founder.before
    user = resident.user()
    resident.next(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
    resident.copies[copy.room_id] = copy
    founder.close()
    answer = alice.post("join/{roomIdOrAlias}", copy.room_id, query=via(resident), status=502)
    assert "keys" in answer["error"] and founder.name in answer["error"], answer
