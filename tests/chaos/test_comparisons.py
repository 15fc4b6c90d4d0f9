"""The comparisons report what they are for: ledgers in which all is well, and the same with one thing wrong."""

import copy

import pytest

from chaos.comparisons import compare
from chaos.known import reason_of
from chaos.ledger import Ledger, Purge, Sent, Watcher

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
    )


@pytest.fixture
def ledger():
    outside = Watcher("@carol:two", "two")
    members = {("m.room.member", user): (f"${user}", "join") for user in MEMBERS}
    state = {KEY: ("$t", None), **members}
    found = Ledger([watcher("@alice:one"), watcher("@bob:two"), outside], [sent(1), sent(2), sent(3)])
    for member in found.watchers[:2]:
        member.state[ROOM] |= {key: event_id for key, (event_id, _) in members.items()}
    found.receipts = {(ROOM, "@alice:one"): ("$3", 20)}
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


def believe_in(ledger, outsider, membership):
    """Servers and members have an outsider in the state of the room."""
    key = ("m.room.member", outsider.user)
    for state in ledger.states[ROOM].values():
        state[key] = ("$c", membership)
    for member in ledger.watchers[:2]:
        member.state[ROOM][key] = "$c"


def keep_a_ghost(ledger, alice, bob, carol):
    believe_in(ledger, carol, "join")


def invite_in_vain(ledger, alice, bob, carol):
    believe_in(ledger, carol, "invite")


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
        (invite_in_vain, "invite elsewhere"),
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


def hide(watcher, event_id):
    for rows in (watcher.timeline, watcher.filled, watcher.history):
        rows[ROOM] = [shown for shown in rows[ROOM] if shown != event_id]


def test_what_comes_of_somebody_turned_out_is_shown_to_nobody_there(ledger):
    bob = ledger.watchers[1]
    hide(bob, "$2")
    assert "never synced" in kinds(ledger)
    ledger.turned_out.add((ROOM, "@alice:one"))
    assert kinds(ledger) == set()
    # Where somebody is shown it, all are.
    bob.history[ROOM].append("$2")
    assert kinds(ledger) == {"never synced"}


def test_what_is_said_in_a_room_that_is_closed_meanwhile_is_shown_to_nobody_there(ledger):
    hide(ledger.watchers[1], "$2")
    ledger.upgrades = [(ROOM, "!new")]
    assert kinds(ledger) == set()
    hide(ledger.watchers[0], "$2")
    assert "never synced" in kinds(ledger), "its own server took it"


def test_what_synapse_takes_of_somebody_who_leaves_comes_nowhere(ledger):
    hide(ledger.watchers[1], "$2")
    ledger.sent[1].after = {**MEMBERS, "@alice:one": "leave"}
    assert "never synced" in kinds(ledger)
    ledger.sent[1].ours = False
    assert kinds(ledger) == set()


def test_what_synapse_takes_of_somebody_who_had_left_comes_nowhere(ledger):
    hide(ledger.watchers[1], "$2")
    ledger.sent[1].ours = False
    assert "never synced" in kinds(ledger)
    ledger.own[ROOM]["@alice:one"] = "leave"
    assert not {"never synced", "not in history"} & kinds(ledger)


def test_what_was_purged_is_not_missed(ledger):
    hide(ledger.watchers[1], "$1")
    ledger.purges = [Purge("two", ROOM, "@bob:two", {"$1"}, {"$2", "$3"}, ended=11.2)]
    assert kinds(ledger) == set()
    ledger.purges[0].server = "three"
    assert "never synced" in kinds(ledger)


def test_receipts_go_lost_where_a_server_was_shut_out(ledger):
    lose_a_receipt(ledger, *ledger.watchers)
    ledger.shut.add(ROOM)
    assert kinds(ledger) == set()


def test_receipts_that_are_to_be_sent_end_with_a_process(ledger):
    lose_a_receipt(ledger, *ledger.watchers)
    ledger.restarted = {"one": 19}
    assert kinds(ledger) == {"receipt"}
    ledger.restarted = {"one": 21}
    assert kinds(ledger) == set()


def test_a_room_whose_servers_cannot_agree_is_left_out(ledger):
    for spoil in (lose_from_history, show_twice, differ_in_state, forget_a_member, lose_a_receipt):
        spoil(ledger, *ledger.watchers)
    ledger.leave_out(ROOM)
    assert kinds(ledger) == set()
