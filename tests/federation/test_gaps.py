"""Events between what is here and what comes are asked for, and the state is worked out of them: whole states, which may be
large, are asked for only where that leads nowhere. A chain of events that allow each other is asked for as a whole."""

import pytest

from harness.client import Client, address, bodies
from harness.clock import Clock
from harness.events import id_of
from harness.participant import UNKNOWN, Participant
from harness.peer import now_ms
from harness.rooms import see
from harness.senders import room_messages
from harness.server import sound
from harness.waiting import until

QUESTIONS = ("event", "event_auth", "get_missing_events", "state", "state_ids")
# Far fewer than the chains have events: what lies between twenty at a time, then an event, its chain, and a state.
REQUESTS_MAX = 20


@pytest.fixture
def room(alice):
    return alice.create_room(preset="public_chat", room_version="11")


@pytest.fixture
def copy(server, resident, room):
    """What the resident has of the room."""
    return resident.join(server, room)


def place_message(resident, copy, body):
    return resident.place(copy, resident.message(copy, body))


def test_what_lies_between_tells_the_state(server, alice, resident, copy, room):
    """State that was set in it included."""
    content = {"membership": "join", "displayname": "A rabbit"}
    missing = [
        place_message(resident, copy, "one"),
        resident.next(copy, "m.room.member", content, state_key=copy.user),
        place_message(resident, copy, "two"),
    ]
    resident.transact(server, [last := place_message(resident, copy, "three")])
    see(alice, room, id_of(last))
    assert bodies(room_messages(alice, room)) == ["one", "two", "three"]
    assert alice.state(room, "m.room.member", copy.user) == content
    assert resident.versions_asked("get_missing_events")
    assert resident.states_asked(*missing, last) == []
    assert resident.versions_asked("state_ids") == resident.versions_asked("state") == []


def test_a_state_is_asked_for_where_nobody_tells_what_lies_between(server, alice, resident, copy, room):
    """What says that the other test would see it."""
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})
    place_message(resident, copy, "never told")
    resident.transact(server, [last := place_message(resident, copy, "told")])
    see(alice, room, id_of(last))
    assert any("/state_ids/" in target for target in resident.states_asked(last))


def tell_nothing_between(resident):
    resident.answer_get_missing_events = lambda *_: (200, {"events": []})


def changes_of_name(resident, copy, count):
    """So many, each allowed by the one before. None of them is sent."""
    start = now_ms()
    for number in range(count):
        content = {"membership": "join", "displayname": f"{number}"}
        resident.next(copy, "m.room.member", content, state_key=copy.user, origin_server_ts=start + number)


def questions_for(server, alice, resident, copy):
    """How many questions the server asks until it has taken in one more message."""
    count = lambda: sum(len(resident.versions_asked(name)) for name in QUESTIONS)
    before = count()
    resident.transact(server, [last := place_message(resident, copy, "at last")])
    shown = address("rooms/{roomId}/event/{eventId}", copy.room_id, id_of(last))
    until(lambda: alice.send_raw("GET", shown).status_code == 200)
    return count() - before


@pytest.mark.parametrize("is_told_between", [True, False])
@pytest.mark.parametrize("count", [250, 1_000])
def test_a_chain_costs_no_more_questions_the_longer_it_is(server, alice, resident, copy, room, count, is_told_between):
    if not is_told_between:
        tell_nothing_between(resident)
    changes_of_name(resident, copy, count)
    assert questions_for(server, alice, resident, copy) <= REQUESTS_MAX
    assert alice.state(room, "m.room.member", copy.user)["displayname"] == f"{count - 1}"
    assert resident.versions_asked("event_auth") == ["v1"]


def test_a_chain_that_lies_between_is_told_with_all_else_there(server, alice, resident, copy, room):
    changes_of_name(resident, copy, 70)
    assert questions_for(server, alice, resident, copy) == len(resident.versions_asked("get_missing_events")) <= 5
    assert alice.state(room, "m.room.member", copy.user)["displayname"] == "69"


def empower(server, alice, resident, copy):
    """Lets the resident's user do all that Alice may. Answers with who may do what."""
    power = alice.state(copy.room_id, "m.room.power_levels")
    power["users"][copy.user] = 100
    alice.set_state(copy.room_id, "m.room.power_levels", power)
    resident.until(lambda: any(event["type"] == "m.room.power_levels" for event in resident.pdus))
    resident.catch_up(server, copy)
    return power


def test_a_chain_of_powers_comes_as_one_of_names_does(server, alice, resident, copy, room):
    tell_nothing_between(resident)
    power = empower(server, alice, resident, copy)
    for number in range(100):
        resident.next(copy, "m.room.power_levels", {**power, "invite": number}, state_key="")
    assert questions_for(server, alice, resident, copy) <= REQUESTS_MAX
    assert alice.state(room, "m.room.power_levels")["invite"] == 99


def test_a_state_tells_the_chain_where_nobody_tells_it_by_itself(server, alice, resident, copy, room):
    tell_nothing_between(resident)
    resident.answer_event_auth = lambda *_: UNKNOWN
    changes_of_name(resident, copy, 250)
    assert questions_for(server, alice, resident, copy) <= REQUESTS_MAX
    assert resident.versions_asked("state") == ["v1"]
    assert alice.state(room, "m.room.member", copy.user)["displayname"] == "249"


@pytest.fixture
def other(server, network, room):
    """One more server in the room."""
    other = network.peer(kind=Participant)
    other.join(server, room)
    return other


def deny(resident, event):
    """Has the resident not give an event that it tells of."""
    answer = resident.answer_event
    resident.answer_event = lambda values, *rest: UNKNOWN if values[0] == id_of(event) else answer(values, *rest)


def is_asked_for(event, peer):
    return any("/v1/event/" in request.target and id_of(event)[1:] in request.target for request in peer.requests)


# The room's version forbids numbers that are no integers.
@pytest.mark.parametrize("part, give", [(1, deny), (0.5, lambda *_: None)], ids=["denied", "unreadable"])
def test_a_state_goes_without_what_nobody_gives(server, alice, resident, copy, room, other, part, give):
    """One event in it that cannot be had or read holds up nothing that follows."""
    empower(server, alice, resident, copy)
    tell_nothing_between(resident)
    give(resident, lost := resident.next(copy, "m.room.topic", {"topic": "lost", "part": part}, state_key=""))
    said = [place_message(resident, copy, body) for body in ("one", "two")]
    resident.transact(server, said)
    see(alice, room, id_of(said[-1]))
    assert bodies(room_messages(alice, room)) == ["one", "two"]
    alice.state(room, "m.room.topic", status=404)
    assert is_asked_for(lost, other), "another one might have had it"


def test_a_state_goes_without_what_its_teller_denies_though_another_server_is_gone(network, tmp_path, resident):
    """That one would never say whether it has it. A minute is waited for it."""
    clock, server = Clock(tmp_path), network.server(tmp_path)
    server.environment = clock.environment
    with sound(server):
        alice = Client(server.base_url).register("alice")
        copy = resident.join(server, alice.create_room(preset="public_chat", room_version="11"))
        other = network.peer(kind=Participant)
        other.join(server, copy.room_id)
        empower(server, alice, resident, copy)
        tell_nothing_between(resident)
        other.closes_all = True
        resident.next(copy, "m.room.topic", {"topic": "lost", "part": 0.5}, state_key="")
        resident.transact(server, [place_message(resident, copy, body) for body in ("one", "two")])
        until(lambda: other.lost)
        assert bodies(room_messages(alice, copy.room_id)) == []
        clock.ahead(120)
        resident.transact(server, [last := place_message(resident, copy, "three")])
        see(alice, copy.room_id, id_of(last))
        assert bodies(room_messages(alice, copy.room_id)) == ["one", "two", "three"]
        alice.state(copy.room_id, "m.room.topic", status=404)


def fail(peer, event):
    """Has a server fail to give any event. Answers how to have it do so again, and whether it was asked meanwhile."""
    peer.answer_event = lambda *_: (500, {"errcode": "M_UNKNOWN", "error": "Not now"})
    return lambda: delattr(peer, "answer_event"), lambda: is_asked_for(event, peer)


# What stands before a server that is down answers in its stead, and knows nothing of Matrix.
PAGES = [
    (404, b"<html>Not found</html>", {"Content-Type": "text/html"}),
    (404, {"message": "no Route matched with those values"}),
]


def be_down_behind_a_proxy(peer, event):
    peer.answer_event = lambda *_: PAGES[0]
    return lambda: delattr(peer, "answer_event"), lambda: is_asked_for(event, peer)


def break_off(peer, _event):
    """Who does not answer about what lies between is asked for nothing else meanwhile."""
    peer.closes_all = True
    is_asked = lambda: any("/get_missing_events/" in target for target in peer.lost)
    return lambda: setattr(peer, "closes_all", False), is_asked


@pytest.mark.parametrize("prevent", [fail, be_down_behind_a_proxy, break_off])
def test_a_state_waits_for_what_a_server_cannot_give_now(server, alice, resident, copy, room, other, prevent):
    """Another server denies it, and that one may have it."""
    empower(server, alice, resident, copy)
    tell_nothing_between(resident)
    deny(resident, kept := resident.next(copy, "m.room.topic", {"topic": "kept"}, state_key=""))
    recover, is_asked = prevent(other, kept)
    resident.transact(server, [place_message(resident, copy, "one")])
    until(is_asked)
    other.know(kept)
    recover()
    resident.transact(server, [last := place_message(resident, copy, "two")])
    see(alice, room, id_of(last))
    assert bodies(room_messages(alice, room)) == ["one", "two"]
    assert alice.state(room, "m.room.topic")["topic"] == "kept"


# An event of a state is asked for with the state, and by itself.
@pytest.mark.parametrize("question, times", [("event", 2), ("state_ids", 1)])
@pytest.mark.parametrize("page", PAGES, ids=["html", "json"])
def test_a_proxy_denies_nothing_in_its_servers_stead(server, alice, resident, copy, room, question, times, page):
    """Nobody else is there to be asked. What waits is taken in once the server itself tells, with all that it has."""
    empower(server, alice, resident, copy)
    tell_nothing_between(resident)
    kept = resident.next(copy, "m.room.topic", {"topic": "kept"}, state_key="")
    given = []

    def give(*_):
        given.append(page)
        return page

    setattr(resident, f"answer_{question}", give)
    resident.transact(server, [place_message(resident, copy, "one")])
    until(lambda: len(given) >= times)
    delattr(resident, f"answer_{question}")
    resident.transact(server, [last := place_message(resident, copy, "two")])
    see(alice, room, id_of(last))
    assert bodies(room_messages(alice, room)) == ["one", "two"]
    assert alice.state(room, "m.room.topic")["topic"] == "kept" and is_asked_for(kept, resident)
