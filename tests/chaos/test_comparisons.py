"""The comparisons report what they are for: ledgers in which all is well, and the same with one thing wrong."""

import copy

import pytest

from chaos.comparisons import compare
from chaos.known import reason_of
from chaos.ledger import Ledger, Sent, Watcher

ROOM = "!burrow"
MEMBERS = {"@alice:one": "join", "@bob:two": "join"}
KEY = ("m.room.topic", "")


def sent(number):
    return Sent(
        ROOM, f"${number}", "@alice:one", "one", f"m{number}", 10 + number, 10.5 + number, ("joined", "joined"), MEMBERS, MEMBERS
    )


def watcher(user):
    ids = ["$1", "$2", "$3"]
    return Watcher(
        user,
        user.split(":")[1],
        stretches={ROOM: [[0, None]]},
        timeline={ROOM: ["$1", "$3"]},
        filled={ROOM: ["$2"]},
        history={ROOM: ids[::-1]},
        state={ROOM: {KEY: "$t"}},
        membership={ROOM: "join"},
        receipts={(ROOM, "@alice:one"): "$3"},
        messages=["d1"] if user == "@bob:two" else [],
    )


@pytest.fixture
def ledger():
    outside = Watcher("@carol:two", "two")
    members = {("m.room.member", user): (f"${user}", "join") for user in MEMBERS}
    state = {KEY: ("$t", None), **members}
    found = Ledger([watcher("@alice:one"), watcher("@bob:two"), outside], [sent(1), sent(2), sent(3)])
    for member in found.watchers[:2]:
        member.state[ROOM] |= {key: event_id for key, (event_id, _) in members.items()}
    found.messages, found.receipts = [("d1", "@bob:two")], {(ROOM, "@alice:one"): ("$3", 20)}
    found.states, found.own = {ROOM: {"one": state, "two": copy.deepcopy(state)}}, {ROOM: dict(MEMBERS)}
    return found


def test_what_synapse_lacks_in_its_history_is_found(ledger):
    bob = ledger.watchers[1]
    bob.ours, bob.timeline[ROOM], bob.filled[ROOM], bob.history[ROOM] = False, ["$3"], [], ["$3"]
    assert {finding.kind for finding in compare(ledger) if not reason_of(finding)} == {"not in history"}


def kinds(ledger):
    return {finding.kind for finding in compare(ledger)}


def test_nothing_is_found_where_all_is_well(ledger):
    assert compare(ledger) == []


def lose(ledger, alice, bob, carol):
    bob.filled[ROOM] = []


def lose_from_history(ledger, alice, bob, carol):
    bob.history[ROOM].remove("$1")


def show_twice(ledger, alice, bob, carol):
    bob.timeline[ROOM].append("$1")


def page_twice(ledger, alice, bob, carol):
    bob.history[ROOM].append("$1")


def send_twice(ledger, alice, bob, carol):
    ledger.sent[1].marker = "m1"


def turn_around(ledger, alice, bob, carol):
    bob.timeline[ROOM].reverse()


def show_to_an_outsider(ledger, alice, bob, carol):
    carol.filled[ROOM] = ["$2"]


def give_to_an_outsider(ledger, alice, bob, carol):
    carol.probed[ROOM] = ["$2"]


def tell_a_server(ledger, alice, bob, carol):
    ledger.told.append(("one", True, "$2"))


def differ_in_state(ledger, alice, bob, carol):
    del ledger.states[ROOM]["two"][KEY]
    del bob.state[ROOM][KEY]


def show_old_state(ledger, alice, bob, carol):
    bob.state[ROOM][KEY] = "$old"


def forget_a_member(ledger, alice, bob, carol):
    bob.membership[ROOM] = "leave"


def keep_a_ghost(ledger, alice, bob, carol):
    for server in ("one", "two"):
        ledger.states[ROOM][server]["m.room.member", "@carol:two"] = ("$c", "join")
    for member in (alice, bob):
        member.state[ROOM]["m.room.member", "@carol:two"] = "$c"


def lose_a_message_to_a_device(ledger, alice, bob, carol):
    bob.messages.clear()


def double_a_message_to_a_device(ledger, alice, bob, carol):
    bob.messages.append("d1")


def lose_a_receipt(ledger, alice, bob, carol):
    bob.receipts.clear()


@pytest.mark.parametrize(
    "spoil, kind",
    [
        (lose, "never synced"),
        (lose_from_history, "not in history"),
        (show_twice, "twice"),
        (page_twice, "twice"),
        (send_twice, "sent twice"),
        (turn_around, "order"),
        (show_to_an_outsider, "leak"),
        (give_to_an_outsider, "leak"),
        (tell_a_server, "leak to a server"),
        (differ_in_state, "state"),
        (show_old_state, "client state"),
        (forget_a_member, "membership"),
        (keep_a_ghost, "membership elsewhere"),
        (lose_a_message_to_a_device, "to-device"),
        (double_a_message_to_a_device, "to-device"),
        (lose_a_receipt, "receipt"),
    ],
)
def test_what_is_wrong_is_found(ledger, spoil, kind):
    spoil(ledger, *ledger.watchers)
    assert kind in kinds(ledger)
    assert all(reason_of(finding) is None for finding in compare(ledger)), "a fault of Warren is never known"


def test_of_shared_history_who_comes_later_sees_what_was_said_before(ledger):
    carol = ledger.watchers[2]
    for event in ledger.sent:
        event.visibility = ("shared", "shared")
    carol.filled[ROOM] = ["$2"]
    assert "leak" in kinds(ledger)
    carol.stretches[ROOM] = [[30, 40]]
    assert "leak" not in kinds(ledger)


@pytest.mark.parametrize("state_after, known", [(False, True), (True, False)])
def test_who_adds_up_the_timeline_may_have_what_lost_a_resolution(ledger, state_after, known):
    bob = ledger.watchers[1]
    bob.state_after, bob.state[ROOM][KEY] = state_after, "$1"
    (finding,) = compare(ledger)
    assert finding.kind.startswith("client state") and (reason_of(finding) is not None) == known


def test_what_only_synapse_is_known_for_is_a_finding_of_warren(ledger):
    bob = ledger.watchers[1]
    bob.membership[ROOM] = "leave"
    assert [reason_of(finding) for finding in compare(ledger) if finding.kind == "membership"] == [None]
    bob.ours = False
    assert all(reason_of(finding) for finding in compare(ledger) if finding.kind == "membership")
