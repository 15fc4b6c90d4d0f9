"""The comparisons of devices and whole rooms report what they are for: as `test_comparisons.py`, of what these know."""

import pytest

from chaos.comparisons import compare
from chaos.known import reason_of
from chaos.ledger import Admission, Change, Claim, Device, Ledger, Message, Purge, Watcher

ROOM, NEW = "!burrow", "!warren"
KEYS, OTHER_KEYS = {"keys": {"ed25519:A": "a"}}, {"keys": {"ed25519:A": "b"}}
FIRST, SECOND = {"key": "1"}, {"key": "2"}


def watcher(user):
    return Watcher(user, user.split(":")[1], stretches={ROOM: [[0, None]]}, membership={ROOM: "join"}, history={ROOM: ["$2"]})


def keys_of(ledger):
    """Bob claims Alice's two keys and then gets her fallback key."""
    device = ledger.devices[0]
    device.keys, device.one_time, device.fallback = KEYS, {"k:1": FIRST, "k:2": SECOND}, {"k:f": {"key": "f"}}
    device.uploaded = {"k:1": 5, "k:2": 5}
    claims = [("k:1", FIRST, 10), ("k:2", SECOND, 11), ("k:f", {"key": "f"}, 12)]
    ledger.claims = [Claim(device, name, key, when, when + 0.5) for name, key, when in claims]
    device.count = 0
    lists = {"@alice:one": {"A": KEYS}, "@bob:two": {}}
    ledger.lists = {"one": {**lists}, "two": {**lists}}
    ledger.changes, ledger.watchers[1].changed = [("@alice:one", 5)], {"@alice:one": 6}


def rooms_of(ledger):
    ledger.upgrades = [(ROOM, NEW)]
    ledger.links = {ROOM: {"one": (None, NEW), "two": (None, NEW)}, NEW: {"one": (ROOM, None)}}
    ledger.admissions = [Admission(NEW, "@alice:one", "one", True, True, 200), Admission(NEW, "@bob:two", "two", True, False, 403)]
    ledger.purges = [Purge("two", ROOM, "@bob:two", {"$1"}, {"$2"}, ended=20)]
    ledger.reports = [(ROOM, "one", {"status": "complete", "changed": 0, "servers": [{"events_accepted": 0}]})]


@pytest.fixture
def ledger():
    devices = [Device("@alice:one", "A", "one"), Device("@bob:two", "B", "two"), Device("@bob:two", "C", "two", since=2.5)]
    found = Ledger([watcher("@alice:one"), watcher("@bob:two")], devices=devices)
    found.messages = [Message(f"d{when}", "@alice:one", "@bob:two", "*", when, when + 0.5) for when in (1, 2, 3)]
    devices[1].messages, devices[2].messages = ["d1", "d2", "d3"], ["d2", "d3"]
    keys_of(found)
    names = [("old", 1, 2), ("new", 3, 4)]
    found.profiles = [Change("@alice:one", "displayname", value, began, ended) for value, began, ended in names]
    found.shown = {server: {"@alice:one": {"displayname": "new"}} for server in ("one", "two")}
    found.own, found.names = {ROOM: {"@alice:one": "join", "@bob:two": "join"}}, {ROOM: {"@alice:one": "new"}}
    rooms_of(found)
    return found


def kinds(ledger):
    return {finding.kind for finding in compare(ledger)}


def test_nothing_is_found_where_all_is_well(ledger):
    assert compare(ledger) == []


def lose_a_message(ledger, alice, bob, later):
    bob.messages.remove("d2")


def lose_a_message_to_a_later_device(ledger, alice, bob, later):
    later.messages.remove("d3")


def double_a_message(ledger, alice, bob, later):
    later.messages.append("d2")


def misdirect_a_message(ledger, alice, bob, later):
    alice.messages.append("d1")


def turn_messages_around(ledger, alice, bob, later):
    bob.messages = ["d2", "d1", "d3"]


def give_a_key_twice(ledger, alice, bob, later):
    ledger.claims[1].name, ledger.claims[1].key = "k:1", FIRST


def give_another_key(ledger, alice, bob, later):
    ledger.claims[0].key = SECOND


def give_a_key_that_nobody_uploaded(ledger, alice, bob, later):
    ledger.claims[0].name = "k:0"


def keep_a_key_that_was_given(ledger, alice, bob, later):
    alice.count = 1


def lose_a_key(ledger, alice, bob, later):
    alice.one_time["k:3"] = {"key": "3"}


def give_the_fallback_key_first(ledger, alice, bob, later):
    ledger.claims[2].began, ledger.claims[2].ended = 8, 9


def keep_a_device(ledger, alice, bob, later):
    alice.gone = True


def lose_a_device(ledger, alice, bob, later):
    ledger.lists["two"] = {}


def have_old_keys(ledger, alice, bob, later):
    ledger.lists["two"] = {"@alice:one": {"A": OTHER_KEYS}}


def tell_nobody_of_a_change(ledger, alice, bob, later):
    ledger.watchers[1].changed["@alice:one"] = 4


def show_an_old_name(ledger, alice, bob, later):
    ledger.shown["two"] = {"@alice:one": {"displayname": "old"}}


def show_an_old_name_in_a_room(ledger, alice, bob, later):
    ledger.names[ROOM]["@alice:one"] = "old"


def follow_nothing(ledger, alice, bob, later):
    ledger.links[NEW]["one"] = (None, None)


def lose_a_tombstone(ledger, alice, bob, later):
    ledger.links[ROOM]["two"] = (None, None)


def turn_away_who_is_entitled(ledger, alice, bob, later):
    ledger.admissions[0].status = 403


def let_in_who_is_not(ledger, alice, bob, later):
    ledger.admissions[1].status = 200


def bring_back_what_was_purged(ledger, alice, bob, later):
    ledger.watchers[1].history[ROOM].append("$1")


def purge_too_much(ledger, alice, bob, later):
    ledger.watchers[1].history[ROOM].clear()


def miss_state(ledger, alice, bob, later):
    ledger.reports[0][2]["changed"] = 1


def miss_an_event(ledger, alice, bob, later):
    ledger.reports[0][2]["servers"][0]["events_accepted"] = 1


def never_end(ledger, alice, bob, later):
    ledger.reports[0][2]["status"] = "active"


@pytest.mark.parametrize(
    "spoil, kind",
    [
        (lose_a_message, "to-device"),
        (lose_a_message_to_a_later_device, "to-device"),
        (double_a_message, "to-device"),
        (misdirect_a_message, "to-device"),
        (turn_messages_around, "to-device order"),
        (give_a_key_twice, "key given twice"),
        (give_another_key, "unknown key"),
        (give_a_key_that_nobody_uploaded, "unknown key"),
        (keep_a_key_that_was_given, "key count"),
        (lose_a_key, "key count"),
        (give_the_fallback_key_first, "fallback key"),
        (keep_a_device, "device list"),
        (lose_a_device, "device list"),
        (have_old_keys, "device list"),
        (tell_nobody_of_a_change, "device change"),
        (show_an_old_name, "profile"),
        (show_an_old_name_in_a_room, "name in a room"),
        (follow_nothing, "upgrade"),
        (lose_a_tombstone, "upgrade"),
        (turn_away_who_is_entitled, "admission"),
        (let_in_who_is_not, "admission"),
        (bring_back_what_was_purged, "purged"),
        (purge_too_much, "purged too much"),
        (miss_state, "resynchronised"),
        (miss_an_event, "resynchronised"),
        (never_end, "resynchronised"),
    ],
)
def test_what_is_wrong_is_found(ledger, spoil, kind):
    spoil(ledger, *ledger.devices)
    assert kind in kinds(ledger)
    assert all(reason_of(finding) is None for finding in compare(ledger)), "a fault of Warren is never known"


def test_what_was_not_acknowledged_may_have_come_or_not(ledger):
    ledger.messages[1].ended = ledger.profiles[1].ended = None
    assert kinds(ledger) == set()
    ledger.devices[1].messages.remove("d2")
    show_an_old_name(ledger, *ledger.devices)
    assert kinds(ledger) == set()


def test_who_has_met_nobody_of_a_server_may_tell_it_nothing(ledger):
    lose_a_message(ledger, *ledger.devices)
    ledger.messages[1].met = False
    assert kinds(ledger) == set()
    double_a_message(ledger, *ledger.devices)
    assert "to-device" in kinds(ledger)


def test_of_a_device_that_is_gone_nothing_is_missed(ledger):
    ledger.devices[1].gone = True
    ledger.devices[1].messages.clear()
    assert kinds(ledger) == set()


def test_keys_that_another_server_claimed_may_be_lost_on_their_way(ledger):
    lose_a_key(ledger, *ledger.devices)
    ledger.devices[0].exact = False
    assert kinds(ledger) == set()


def test_who_shares_no_room_is_told_of_no_change(ledger):
    tell_nobody_of_a_change(ledger, *ledger.devices)
    ledger.watchers[1].stretches = {ROOM: [[0, 4], [4.5, None]]}
    assert kinds(ledger) == set()
