"""Events are taken in only with a good signature of a key that was good when they say that they were made.

The class of fault: a missing or late check of signatures, expired keys, leaked keys.
"""

import pytest

from harness.client import bodies
from harness.events import id_of, redacted
from harness.participant import Participant
from harness.peer import DAY_MS, Key, now_ms, signed
from harness.senders import room_messages

HOUR_MS = DAY_MS // 24


class Changed(Participant):
    """Had another key until an hour ago, and publishes one that has leaked, too."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.old, self.leaked = Key("old"), Key("leaked")
        self.retired = now_ms() - HOUR_MS
        self.changes["old_verify_keys"] = {self.old.id: {"key": self.old.public, "expired_ts": self.retired}}
        keys = {key.id: {"key": key.public} for key in (self.key, self.leaked)}
        self.changes["verify_keys"] = keys


@pytest.fixture
def hostile(network):
    return network.peer(kind=Changed)


def refused(server, hostile, event):
    """Whether the server says why it does not take the event in, or does not even see one in it."""
    results = hostile.transact(server, [event])
    return not results or all("error" in result for result in results.values())


def test_what_is_not_rightly_signed_is_refused(server, hostile, honest, copy, alice, room):
    good = hostile.message(copy, "good")
    bare = {name: value for name, value in good.items() if name != "signatures"}
    forged = Key(hostile.key.id.removeprefix("ed25519:"))
    other = hostile.message(copy, "other")
    for event in (
        {**bare, "signatures": {}},
        bare,
        {**bare, "signatures": {hostile.name: {}}},
        {**bare, "signatures": {hostile.name: {hostile.key.id: "AAAA"}}},
        {**bare, "signatures": {hostile.name: {hostile.key.id: 5}}},
        {**bare, "signatures": signed(redacted(bare), hostile.name, forged)["signatures"]},
        {**bare, "signatures": other["signatures"]},
        # By a server that is not the sender's.
        {**bare, "signatures": signed(redacted(bare), honest.name, honest.key)["signatures"]},
        hostile.message(copy, "in another's name", sender=honest.user()),
        hostile.message(copy, "in our user's name", sender=alice.user_id),
    ):
        assert refused(server, hostile, event), event
    assert hostile.transact(server, [good]) == {id_of(good): {}}
    assert bodies(room_messages(alice, room)) == ["good"]


def test_a_content_that_was_changed_behind_the_signature_is_not_shown(server, hostile, copy, alice, room):
    """What the hash does not fit is taken for redacted, as the signature holds for that."""
    event = hostile.message(copy, "as it was signed")
    changed = {**event, "content": {"msgtype": "m.text", "body": "changed"}}
    # Nor does it tell the other, when it is asked for that.
    hostile.know(changed)
    hostile.transact(server, [changed])
    assert bodies(room_messages(alice, room)) == [None]


def test_a_key_counts_for_the_time_in_which_it_was_good(server, hostile, copy, alice, room):
    before = hostile.message(copy, "in its time", key=hostile.old, origin_server_ts=hostile.retired - 1)
    assert not refused(server, hostile, before)
    after = hostile.message(copy, "after its time", key=hostile.old, origin_server_ts=hostile.retired + 1)
    assert refused(server, hostile, after)
    # The key of today is good for a day. What is of later waits for one that is good then.
    later = hostile.message(copy, "next week", origin_server_ts=now_ms() + 7 * DAY_MS)
    hostile.transact(server, [later])
    assert not refused(server, hostile, hostile.message(copy, "today"))
    assert bodies(room_messages(alice, room)) == ["in its time", "today"]


def test_a_key_that_has_leaked_counts_for_nothing(server, hostile, copy, alice, room):
    leaked = hostile.message(copy, "by a thief", key=hostile.leaked)
    assert refused(server, hostile, leaked)
    status, answer = hostile.send(server, "GET", "/_matrix/federation/v1/publicRooms", key=hostile.leaked)
    assert status == 401, answer
    assert bodies(room_messages(alice, room)) == []
