"""A server that was asked for its keys is left alone for a while. That keeps nobody out of a room that is entered meanwhile,
nothing out of its history, and no request away that is signed with a new key (server-server API, "Retrieving server keys").
"""

import json
import time

import pytest

from harness.client import bodies
from harness.omitting import Omitting
from harness.peer import DAY_MS, Key, now_ms, signed
from harness.rooms import joined_members, via
from harness.senders import room_messages
from harness.waiting import until

LIST = "/_matrix/federation/v1/publicRooms"
KEYS = "/_matrix/key/v2/server"
QUERY = "/_matrix/key/v2/query"
# The time for which a server is left alone, and half of it.
PAUSE_SECONDS = 30
SECONDS_MAX = 15
# When it is asked again, and somewhat more.
AGAIN_SECONDS_MAX = 60


@pytest.fixture
def gone(other):
    """A server whose keys only a notary has."""
    other.close()
    return other


@pytest.fixture
def notary_knows(network, monkeypatch):
    """Lets the notary tell keys of a server, each as it was published when it was the only one, to who asks for it. They
    count for so long from then on."""

    def published(peer, key, valid_ms):
        keys = {
            "server_name": peer.name,
            "valid_until_ts": now_ms() + valid_ms,
            "verify_keys": {key.id: {"key": key.public}},
            "old_verify_keys": {},
        }
        return signed(signed(keys, peer.name, key), network.notary.name, network.notary.key)

    def let(peer, *keys, valid_ms=DAY_MS):
        def answer(request):
            wanted = json.loads(request.body)["server_keys"].get(peer.name, {})
            return 200, {"server_keys": [published(peer, key, valid_ms) for key in keys if key.id in wanted]}

        monkeypatch.setitem(network.notary.answers, QUERY, answer)

    return let


def come(server, copy, word="someone", **more):
    """A user of a server is in the room, before anybody asks for it."""
    user = server.user(word)
    server.come(copy, user, **more)
    return user


def entered(alice, resident, other):
    """The members of a room in which a user of the other server is, as it is entered."""
    copy = resident.create()
    come(other, copy)
    alice.join(copy.room_id, query=via(resident))
    return joined_members(alice, copy.room_id)


def test_who_is_back_is_there_in_the_next_room_that_is_entered(server, alice, resident, other, monkeypatch):
    with monkeypatch.context() as away:
        away.setitem(other.answers, KEYS, lambda _: (503, {"errcode": "M_UNKNOWN", "error": "Not now"}))
        assert other.user() not in entered(alice, resident, other)
    until(lambda: other.user() in entered(alice, resident, other), SECONDS_MAX)


@pytest.mark.parametrize("resident_kind", [Omitting])
def test_who_is_back_when_the_room_is_whole_is_there_when_the_pause_is_over(
    server, alice, resident, other, monkeypatch
):
    """The members came just now, and theirs was asked for with them."""
    resident.may_tell.set()
    copy = resident.create()
    user = come(other, copy)
    with monkeypatch.context() as away:
        away.setitem(other.answers, KEYS, lambda _: (503, {"errcode": "M_UNKNOWN", "error": "Not now"}))
        alice.join(copy.room_id, query=via(resident))
        assert joined_members(alice, copy.room_id) == {alice.user_id, resident.user()}
    until(lambda: user in joined_members(alice, copy.room_id), AGAIN_SECONDS_MAX)


def test_a_key_that_has_lapsed_lets_in_what_waited_for_it_elsewhere(server, alice, resident, gone, notary_knows):
    """It is good for what was signed before that."""
    copy = resident.create()
    user = come(gone, copy)
    alice.join(copy.room_id, query=via(resident))
    assert user not in joined_members(alice, copy.room_id)
    notary_knows(gone, gone.key, valid_ms=-1)
    until(lambda: user in entered(alice, resident, gone), SECONDS_MAX)
    until(lambda: user in joined_members(alice, copy.room_id), SECONDS_MAX)


def test_forged_requests_keep_no_members_away(server, alice, resident, gone, notary_knows):
    notary_knows(gone, gone.key)
    for number in range(3):
        assert gone.send(server, "GET", LIST, key=Key(f"made{number}"))[0] == 401
    copy = resident.create()
    user = come(gone, copy)
    alice.join(copy.room_id, query=via(resident))
    assert user in joined_members(alice, copy.room_id)


@pytest.mark.parametrize("resident_kind", [Omitting])
def test_members_under_a_key_that_only_a_notary_has_are_there_at_once(server, alice, resident, gone, notary_knows):
    """What the room is entered with is under another key of the same server, which is asked for first."""
    resident.may_tell.set()
    second = Key("p2")
    notary_knows(gone, gone.key, second)
    copy = resident.create()
    users = {resident.user(), come(gone, copy, "first"), come(gone, copy, "second", key=second)}
    levels = {resident.user(): 100, gone.user("first"): 100}
    resident.next(copy, "m.room.power_levels", {"users": levels}, state_key="")
    gone.next(copy, "m.room.topic", {"topic": "under the first"}, sender=gone.user("first"), state_key="")
    alice.join(copy.room_id, query=via(resident))
    assert joined_members(alice, copy.room_id) == {alice.user_id, *users}


def test_history_under_a_key_that_only_a_notary_has_is_there_at_once(server, alice, resident, gone, notary_knows):
    second = Key("p2")
    notary_knows(gone, gone.key, second)
    copy = resident.create()
    user = come(gone, copy)
    gone.place(copy, gone.message(copy, "under the second", sender=user, key=second))
    resident.place(copy, resident.message(copy, "at last"))
    alice.join(copy.room_id, query=via(resident))
    assert bodies(room_messages(alice, copy.room_id)) == ["under the second", "at last"]


def test_a_request_under_a_new_key_is_believed_at_once_and_made_up_ones_have_nobody_asked(server, alice, resident):
    begun = time.monotonic()
    resident.join(server, alice.create_room(preset="public_chat", room_version="11"))
    assert len(resident.asked(KEYS)) == 1
    old, resident.key = resident.key, Key("p2")
    resident.changes["old_verify_keys"] = {old.id: {"key": old.public, "expired_ts": now_ms()}}
    assert resident.send(server, "GET", LIST)[0] == 200
    for number in range(5):
        assert resident.send(server, "GET", LIST, key=Key(f"made{number}"))[0] == 401
    # Twice in each pause; a loaded machine may take longer than one.
    pauses = 1 + int((time.monotonic() - begun) / PAUSE_SECONDS)
    assert len(resident.asked(KEYS)) <= 2 * pauses
