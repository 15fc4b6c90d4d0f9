"""Other servers give out pruned, as a redaction would leave it, what this one could not see: single events, and history. Nothing
that is known whole here is lost by that, and what was told pruned is whole once it is told whole. What one server gives pruned
others are asked for; this one gives what it was given, as it has it, so that nothing is missing before what follows."""

import threading

import pytest

from harness.client import Client, bodies
from harness.events import id_of, redacted
from harness.omitting import Omitting
from harness.participant import UNKNOWN, Participant, path
from harness.peer import now_ms
from harness.rooms import LAZY, contents, everything, joined_members, see, via
from harness.senders import room_messages
from harness.waiting import until

STATE = {
    "m.room.name": {"name": "The name"},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
    "org.example.custom": {"some": "thing"},
}


def furnished(resident):
    copy = resident.create()
    for type, content in STATE.items():
        resident.next(copy, type, content, state_key="")
    profile = {"membership": "join", "displayname": "The resident"}
    resident.next(copy, "m.room.member", profile, state_key=copy.user)
    return copy


def test_reading_history_takes_nothing_from_the_state(server, alice, resident):
    copy = furnished(resident)
    said = resident.place(copy, resident.message(copy, "hidden"))
    alice.join(copy.room_id, query=via(resident))
    before = contents(alice, copy.room_id)
    assert {type: before[type, ""] for type in STATE} == STATE
    answer = resident.answer_backfill

    def pruned(*asked):
        _, told = answer(*asked)
        return resident.enveloped([redacted(event) for event in told["pdus"]])

    resident.answer_backfill = pruned
    shown = {event["event_id"]: event["content"] for event in everything(alice, copy.room_id)}
    assert shown[id_of(said)] == {}, "what was not known is told as it is given"
    assert set(copy.state.values()) <= set(shown)
    assert contents(alice, copy.room_id) == before
    # Nor is it lost to who looks at the room for the first time.
    again = alice.login()
    again.sync()
    assert contents(again, copy.room_id) == before


@pytest.mark.parametrize("resident_kind", [Omitting])
def test_a_member_who_was_told_pruned_has_their_name_once_all_are_known(server, alice, resident):
    """While members are missing one of them speaks, and the event of their membership is asked for by itself."""
    copy = resident.create()
    users = [resident.user(word) for word in ("carl", "dora")]
    for user in users:
        profile = {"membership": "join", "displayname": "Name of " + user}
        resident.next(copy, "m.room.member", profile, sender=user, state_key=user)
    resident.answer_event = lambda values, *_: resident.enveloped([redacted(resident.events[values[0]])])
    alice.join(copy.room_id, query=via(resident))
    said = resident.place(copy, resident.message(copy, "hello", sender=users[0]))
    resident.transact(server, [said])
    see(alice, copy.room_id, id_of(said), filter=LAZY)
    asked = [request.target for request in resident.requests if "/v1/event/" in request.target]
    membership = copy.state["m.room.member", users[0]]
    assert any(membership[1:] in target for target in asked), "the membership has not come by itself"
    resident.may_tell.set()
    alice.sync_until(lambda _: set(users) <= joined_members(alice, copy.room_id))
    names = {user: contents(alice, copy.room_id)["m.room.member", user].get("displayname") for user in users}
    assert names == {user: "Name of " + user for user in users}


# More messages than one page of history has.
MANY = 130
MINUTE = 60_000


@pytest.fixture
def pruning(other):
    """A server that gives messages without their content, and has most of the members, so that it is asked first."""
    prune(other)
    return other


def prune(peer):
    """Lets a server give messages without their content, however it is asked for them."""

    def pruned(events):
        return [redacted(event) if event["type"] == "m.room.message" else event for event in events]

    def lacking_content(answer):
        def answer_pruned(*asked):
            status, told = answer(*asked)
            return status, {name: pruned(value) if name in ("pdus", "events") else value for name, value in told.items()}

        return answer_pruned

    for question in ("backfill", "event", "get_missing_events"):
        name = f"answer_{question}"
        setattr(peer, name, lacking_content(getattr(peer, name)))


def furnish_with_members(resident, pruning):
    """A room of the resident's with more users of the other server."""
    copy = resident.create()
    for word in ("one", "two"):
        enter(resident, copy, pruning, word)
    return copy


def enter(resident, copy, peer, word):
    user = peer.user(word)
    join = peer.event(copy, "m.room.member", {"membership": "join"}, sender=user, state_key=user)
    resident.take(copy, join)
    return join


def say(resident, copy, count):
    return [resident.place(copy, resident.message(copy, f"said {number}")) for number in range(count)]


def test_history_that_one_server_gives_pruned_is_read_as_another_has_it(server, alice, resident, pruning):
    copy = furnish_with_members(resident, pruning)
    say(resident, copy, MANY)
    alice.join(copy.room_id, query=via(resident))
    assert bodies(room_messages(alice, copy.room_id)) == [f"said {number}" for number in range(MANY)]
    assert pruning.versions_asked("backfill"), "it is asked first"


def test_what_nobody_gives_whole_is_read_as_it_is_given(server, alice, resident, pruning):
    """And of others nothing is asked again and again."""
    copy = furnish_with_members(resident, pruning)
    said = say(resident, copy, 10)
    prune(resident)
    alice.join(copy.room_id, query=via(resident))
    shown = {event["event_id"]: event["content"] for event in everything(alice, copy.room_id)}
    assert [shown[id_of(event)] for event in said] == [{}] * len(said)
    everything(alice, copy.room_id)
    assert len(pruning.versions_asked("backfill")) == len(resident.versions_asked("backfill")) == 1


# What is said in a room that nobody gives whole at first.
FEW = 5
SAID = [f"said {number}" for number in range(FEW)]


def read_pruned(server, resident, copy):
    """A client of who comes into the room and is shown it pruned, while the resident does not answer."""
    say(resident, copy, FEW)
    resident.answer_backfill = lambda *_: UNKNOWN
    alice = Client(server.base_url).register("alice")
    alice.join(copy.room_id, query=via(resident))
    assert bodies(room_messages(alice, copy.room_id)) == [None] * FEW
    return alice


def test_what_was_taken_in_pruned_is_asked_for_again_when_it_is_read(warren, resident, pruning):
    """Once in a while: it is started anew in between, and knows no more whom it has asked."""
    copy = furnish_with_members(resident, pruning)
    alice = read_pruned(warren, resident, copy)
    assert bodies(room_messages(alice, copy.room_id)) == [None] * FEW
    assert len(resident.versions_asked("backfill")) == 1
    del resident.answer_backfill
    warren.restart()
    for _ in range(2):
        assert bodies(room_messages(alice, copy.room_id)) == SAID
    assert len(resident.versions_asked("backfill")) == 2


@pytest.fixture
def crowd(network, resident, pruning):
    """Such servers, one more than are asked for what one of them gives without its content."""
    others = [network.peer(kind=Participant) for _ in range(3)]
    for peer in others:
        peer.share(resident)
        prune(peer)
    yield [pruning, *others]
    for peer in others:
        peer.close()


def test_the_senders_server_is_asked_before_those_with_more_members(warren, resident, crowd):
    """As it has all of it. It does not answer at first, and is asked again when what was said is read after a start."""
    copy = resident.create()
    for peer in crowd:
        for word in ("one", "two"):
            enter(resident, copy, peer, word)

    def asked():
        return len(resident.versions_asked("backfill")), sum(len(peer.versions_asked("backfill")) for peer in crowd)

    alice = read_pruned(warren, resident, copy)
    of_resident, of_crowd = asked()
    assert of_resident == 1
    del resident.answer_backfill
    warren.restart()
    assert bodies(room_messages(alice, copy.room_id)) == SAID
    assert asked() == (2, of_crowd)


def test_what_comes_whole_when_nobody_waits_any_more_is_read_the_next_time(warren, resident, pruning):
    """The sender's server is silent for as long as a reader waits; then another one has it."""
    copy = furnish_with_members(resident, pruning)
    alice = read_pruned(warren, resident, copy)
    assert warren.stop() == 0, warren.log_tail()
    may_tell = threading.Event()

    def silent(*_):
        may_tell.wait()
        return UNKNOWN

    resident.answer_backfill = silent
    del pruning.answer_backfill
    try:
        warren.start()
        until(lambda: bodies(room_messages(alice, copy.room_id)) == SAID, seconds=30)
    finally:
        may_tell.set()


def test_of_what_its_sender_has_redacted_nobody_is_asked_for_more(server, alice, resident, other):
    copy = furnish_with_members(resident, other)
    said = say(resident, copy, 3)
    redaction = resident.next(copy, "m.room.redaction", {"redacts": id_of(said[1])})
    resident.know(redacted(said[1]))
    alice.join(copy.room_id, query=via(resident))
    shown = {event["event_id"]: event["content"] for event in everything(alice, copy.room_id)}
    assert [shown[id_of(event)] for event in said] == [said[0]["content"], {}, said[2]["content"]]
    assert id_of(redaction) in shown
    assert other.versions_asked("backfill") and not resident.versions_asked("backfill")


def both_in(server, alice, resident, pruning):
    """A room of Alice's that both servers are in. Answers with its id and what the resident has of it."""
    room = alice.create_room(preset="public_chat", room_version="11")
    copy = resident.join(server, room)
    users = [pruning.user(word) for word in ("one", "two")]
    for user in users:
        pruning.join(server, room, user)
    resident.until(lambda: set(users) <= {event["sender"] for event in resident.pdus})
    return room, resident.catch_up(server, copy)


def test_what_lies_between_is_taken_in_as_another_server_has_it(server, alice, resident, pruning):
    """Who gives it pruned has sent what follows it."""
    room, copy = both_in(server, alice, resident, pruning)
    say(resident, copy, 8)
    last = resident.place(copy, pruning.message(copy, "last", sender=pruning.user("one")))
    assert pruning.transact(server, [last]) == {id_of(last): {}}
    see(alice, room, id_of(last))
    assert pruning.versions_asked("get_missing_events")
    assert bodies(room_messages(alice, room)) == [*(f"said {number}" for number in range(8)), "last"]


def test_of_what_nobody_has_whole_nobody_is_asked_each_time_it_is_told(server, alice, resident, pruning):
    room, copy = both_in(server, alice, resident, pruning)
    prune(resident)
    said = say(resident, copy, 3)

    def send(text):
        event = resident.place(copy, pruning.message(copy, text, sender=pruning.user("one")))
        assert pruning.transact(server, [event]) == {id_of(event): {}}
        see(alice, room, id_of(event))
        return len(resident.versions_asked("backfill"))

    assert send("last") == 1
    note = resident.next(copy, "org.example.note", {"some": "thing"})
    answer = pruning.answer_get_missing_events

    def with_more(*asked):
        status, told = answer(*asked)
        return status, {"events": [*map(redacted, said), *told["events"]]}

    pruning.answer_get_missing_events = with_more
    assert send("the very last") == 1
    shown = {event["event_id"]: event["content"] for event in everything(alice, room)}
    assert shown[id_of(note)] == note["content"]
    assert [shown[id_of(event)] for event in said] == [{}] * len(said)


def test_what_there_was_at_a_time_is_as_another_server_has_it(server, alice, resident, pruning):
    room, copy = both_in(server, alice, resident, pruning)
    for peer in (resident, pruning):
        peer.answer_get_missing_events = lambda *_: (200, {"events": []})
    start = now_ms() + MINUTE
    for number in range(6):
        word = resident.message(copy, str(number), origin_server_ts=start + number * MINUTE)
        resident.place(copy, word)
    assert resident.transact(server, [word]) == {id_of(word): {}}
    # No page of history is read, which would fill the gap.
    see(alice, room, id_of(word))
    query = {"ts": start + 3 * MINUTE, "dir": "f"}
    found = alice.get("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", room, query=query)["event_id"]
    assert pruning.versions_asked("timestamp_to_event"), "it is asked first"
    assert alice.get("rooms/{roomId}/event/{eventId}", room, found)["content"]["body"] == "3"


def test_what_was_told_pruned_is_told_as_it_is_here(server, alice, resident, network):
    copy = resident.create()
    said, last = say(resident, copy, 2)
    answer = resident.answer_backfill

    def pruned(*asked):
        _, told = answer(*asked)
        return resident.enveloped([redacted(event) if event == said else event for event in told["pdus"]])

    resident.answer_backfill = pruned
    alice.join(copy.room_id, query=via(resident))
    shown = {event["event_id"]: event["content"] for event in everything(alice, copy.room_id)}
    assert (shown[id_of(said)], shown[id_of(last)]) == ({}, last["content"])
    asker = network.peer(kind=Participant)
    join = enter(resident, copy, asker, "carl")
    assert resident.transact(server, [join]) == {id_of(join): {}}
    see(alice, copy.room_id, id_of(join))

    def told():
        between = {"earliest_events": [], "latest_events": [id_of(last)], "limit": 1}
        lists = [
            asker.ask(server, "GET", path("v1/event/{}", id_of(said)))["pdus"],
            asker.ask(server, "GET", path("v1/backfill/{}?v={}&limit=2", copy.room_id, id_of(last)))["pdus"],
            asker.ask(server, "POST", path("v1/get_missing_events/{}", copy.room_id), between)["events"],
        ]
        return [[event["content"].get("body") for event in events] for events in lists]

    assert told() == [[None], ["said 1", None], [None]]
    # It comes whole.
    assert resident.transact(server, [said]) == {id_of(said): {}}
    assert told() == [["said 0"], ["said 1", "said 0"], ["said 0"]]
    asker.close()
