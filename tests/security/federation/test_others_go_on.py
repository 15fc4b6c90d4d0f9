"""A hostile or broken peer stops nobody else: other rooms, other servers and users go on."""

import contextlib
import http.client
import json
import secrets
import socket
import ssl
import threading
import time

import pytest

from harness.client import Client, bodies
from harness.events import Copy, id_of
from harness.federated import Warren
from harness.metrics import figure, told
from harness.participant import Participant, path
from harness.peer import authorization, base64_of, canonical, now_ms
from harness.rooms import see
from harness.senders import room_messages
from harness.server import free_port, limited, sound
from harness.waiting import until

# Within the time that a healthy server takes, and far below any timeout of ours.
SECONDS_MAX = 8
# More rooms than are fetched for at once.
ROOMS = 24


class Silent(Participant):
    """Takes connections and questions, and never answers those that a test names, until it is closed."""

    silent_about = ()

    def answer_to(self, request):
        if any(f"/{name}" in request.target for name in self.silent_about):
            self.closing.wait(120)
        return super().answer_to(request)


@pytest.fixture
def silent(network):
    peer = network.peer(kind=Silent)
    yield peer
    # Whoever still waits for it is let go.
    peer.closing.set()


QUESTIONS = ("get_missing_events", "state", "event", "backfill")


def behind_a_gap(peer, copy, body):
    """An event that follows one which only its server can tell. Both are known to the peer."""
    missing = peer.place(copy, peer.message(copy, f"{body}, before"))
    peer.before[id_of(missing)] = dict(copy.state)
    return peer.place(copy, peer.message(copy, body))


def test_who_never_takes_what_is_sent_delays_nobody(server, network, honest, alice, room):
    honest.join(server, room)
    peers = [network.peer(kind=Silent) for _ in range(5)]
    for peer in peers:
        peer.join(server, room)
        peer.silent_about = ("send",)
    begin = time.monotonic()
    sent = [alice.send(room, f"{number}") for number in range(60)]
    honest.until(lambda: sent[-1] in [id_of(event) for event in honest.pdus])
    assert time.monotonic() - begin < SECONDS_MAX
    told = [event["content"]["body"] for event in honest.pdus if event["type"] == "m.room.message"]
    assert told == [f"{number}" for number in range(60)]
    for peer in peers:
        peer.closing.set()


class Slow(Participant):
    """Holds back its answers to transactions whenever a test says so, for less than they may take at most."""

    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        self.let = threading.Event()
        self.let.set()
        # How many answers are held back now.
        self.counting = threading.Lock()
        self.held = 0

    def answer_send(self, *question):
        answer = super().answer_send(*question)
        with self.counting:
            self.held += 1
        self.let.wait(80)
        with self.counting:
            self.held -= 1
        return answer


# Open files that leave fourteen places for deliveries, half of which slow servers may have; and more of these than places.
FEW_FILES, PLACES, SLOW = 800, 14, 18


def test_however_many_are_slow_at_once_the_others_are_sent_what_is_said(network, tmp_path, honest):
    """Also when they are prompt once in between. Some names of one server make the others wait for what is slow, once."""
    address = f"127.0.0.1:{free_port()}"
    with sound(limited(network.server(tmp_path, "--metrics-listen", f"http://{address}"), f"-n {FEW_FILES}")) as server:
        alice = Client(server.base_url).register("alice")
        theirs, good = (alice.create_room(preset="public_chat", room_version="11") for _ in range(2))
        honest.join(server, good)
        slow = [network.peer(kind=Slow) for _ in range(SLOW)]
        for peer in slow:
            peer.join(server, theirs)

        def have(body):
            return sum(body in peer.bodies for peer in slow)

        def holding():
            return sum(peer.held > 0 for peer in slow)

        def broken_off():
            return told(f"http://{address}", "warren_federation_deliveries_broken_off_total").get(("slow",), 0)

        def all_are(held_back):
            for peer in slow:
                peer.let.clear() if held_back else peer.let.set()

        try:
            all_are(held_back=True)
            alice.send(theirs, "slowly")
            # Some of them may have been at what was sent before.
            until(lambda: holding() >= PLACES)
            alice.send(good, "first")
            honest.until(lambda: "first" in honest.bodies, 40)
            until(lambda: broken_off() >= PLACES // 2)
            all_are(held_back=False)
            alice.send(theirs, "promptly")
            until(lambda: have("promptly") == SLOW)
            all_are(held_back=True)
            alice.send(theirs, "slowly again")
            until(lambda: holding() >= PLACES // 2)
            alice.send(good, "second")
            honest.until(lambda: "second" in honest.bodies, SECONDS_MAX)
        finally:
            all_are(held_back=False)


class Unhurried(Participant):
    """Takes its time with every transaction when a test says so, and less than makes it slow."""

    seconds = 0

    def answer_send(self, *question):
        answer = super().answer_send(*question)
        self.closing.wait(self.seconds)
        return answer

    def has_more(self):
        """Whether it has been sent messages again."""
        with_messages = [
            transaction for _, transaction in self.transactions
            if any(event["type"] == "m.room.message" for event in transaction["pdus"])
        ]
        return len(with_messages) >= 2


# So many messages take an unhurried server seven transactions of seven seconds each; after two others have their turn.
UNHURRIED_SECONDS, BACKLOG, TURN_SECONDS_MAX = 7, 350, 30


def test_who_is_prompt_and_always_has_more_to_come_lets_others_have_their_turn(network, tmp_path, honest):
    with sound(limited(network.server(tmp_path), f"-n {FEW_FILES}")) as server:
        alice = Client(server.base_url).register("alice")
        theirs, good = (alice.create_room(preset="public_chat", room_version="11") for _ in range(2))
        honest.join(server, good)
        unhurried = [network.peer(kind=Unhurried) for _ in range(SLOW)]
        for peer in unhurried:
            peer.join(server, theirs)
        try:
            for peer in unhurried:
                peer.seconds = UNHURRIED_SECONDS
            for number in range(BACKLOG):
                alice.send(theirs, f"{number}")
            # Some of them only had the first one, as it came, and are at the others now.
            until(lambda: sum(peer.has_more() for peer in unhurried) >= PLACES // 2)
            alice.send(good, "among them")
            honest.until(lambda: "among them" in honest.bodies, TURN_SECONDS_MAX)
        finally:
            for peer in unhurried:
                peer.closing.set()


def test_who_never_answers_questions_holds_up_no_other_room_or_server(server, silent, honest, alice):
    """It has events in many rooms wait for what it does not tell; another server's gaps are filled at once."""
    rooms = [alice.create_room(preset="public_chat", room_version="11") for _ in range(ROOMS)]
    copies = [silent.join(server, room) for room in rooms]
    theirs = {room: honest.join(server, room) for room in (rooms[0], rooms[-1])}
    for copy in copies:
        # The silent one does not know of the honest one's join, as if it had not been told.
        silent.silent_about = QUESTIONS
        silent.transact(server, [behind_a_gap(silent, copy, "never")])
    other = alice.create_room(preset="public_chat", room_version="11")
    theirs[other] = honest.join(server, other)
    for room, copy in theirs.items():
        alice.sync()
        begin = time.monotonic()
        event = behind_a_gap(honest, copy, "at once")
        honest.transact(server, [event])
        see(alice, room, id_of(event))
        assert time.monotonic() - begin < SECONDS_MAX, room
        assert bodies(room_messages(alice, room)) == ["at once, before", "at once"]
        # What lay between tells the state.
        before = [honest.events[event_id] for event_id in event["prev_events"]]
        assert honest.versions_asked("get_missing_events") and not honest.states_asked(event, *before)
    # The silent server's own room takes what it sends rightly, too.
    copy = Copy(rooms[1], copies[1].state, copies[1].state.values(), copies[1].depth)
    copy.ends = [next(reversed(list(copies[1].state.values())))]
    good = silent.message(copy, "rightly")
    assert silent.transact(server, [good]) == {id_of(good): {}}


def made_up():
    """The id of an event that there is not."""
    return "$" + base64_of(secrets.token_bytes(32)).replace("+", "-").replace("/", "_")


# Events that a server makes up in all, and that others are asked for each minute because of that.
MADE_UP, ASKED_A_MINUTE = 500, 20


def test_for_what_one_server_makes_up_the_others_are_hardly_asked(network, tmp_path, hostile):
    """It is asked for all of it itself."""
    address = f"127.0.0.1:{free_port()}"
    with sound(network.server(tmp_path, "--metrics-listen", f"http://{address}")) as server:
        alice = Client(server.base_url).register("alice")
        room = alice.create_room(preset="public_chat", room_version="11")
        others = [network.peer(kind=Participant) for _ in range(3)]
        for peer in others:
            peer.join(server, room)
        copy = hostile.join(server, room)

        def asked(peer):
            targets = [request.target for request in peer.requests]
            return {target for target in targets if "/v1/event/" in target}

        def minutes():
            return 1 + (time.monotonic() - begin) // 60

        begin = time.monotonic()
        names = [[made_up() for _ in range(10)] for _ in range(MADE_UP // 10)]
        events = [hostile.message(copy, "x", auth_events=made_up_ones) for made_up_ones in names]
        assert hostile.transact(server, events) == {id_of(event): {} for event in events}
        until(lambda: len(asked(hostile)) >= MADE_UP)
        for peer in others:
            assert 0 < len(asked(peer)) <= ASKED_A_MINUTE * minutes()
        left_out = told(f"http://{address}", "warren_federation_questions_left_out_total")
        assert left_out["too_many",] >= MADE_UP // 2
        # Nor does one more have them asked anew.
        one_more = made_up()
        hostile.transact(server, [hostile.message(copy, "y", auth_events=[one_more])])
        until(lambda: any(one_more[1:] in target for target in asked(hostile)))
        for peer in others:
            count = sum("/v1/event/" in request.target for request in peer.requests)
            assert count == len(asked(peer)) <= ASKED_A_MINUTE * minutes()


def test_a_forgery_that_waits_keeps_the_event_itself_from_nothing(server, hostile, honest, copy, alice, room):
    """A copy signed by a key that nobody has waits for that key, and lacks what the event follows, too."""
    theirs = honest.join(server, room)
    event = behind_a_gap(honest, theirs, "genuine")
    forged = {**event, "signatures": {honest.name: {"ed25519:unheard": "A" * 86}}}
    assert hostile.transact(server, [forged]) == {id_of(event): {}}
    assert honest.transact(server, [event]) == {id_of(event): {}}
    see(alice, room, id_of(event))
    assert bodies(room_messages(alice, room)) == ["genuine, before", "genuine"]


def test_a_poisoned_room_holds_up_no_other(server, hostile, alice):
    """All that can be wrong comes for one room, side by side with what is right for others."""
    poisoned, good = (alice.create_room(preset="public_chat", room_version="11") for _ in range(2))
    bad, right = hostile.join(server, poisoned), hostile.join(server, good)
    alice.sync()
    stop = threading.Event()

    def poison():
        number = 0
        while not stop.is_set():
            number += 1
            events = [hostile.message(bad, "x", prev_events=[f"${number:020}{at:023}"]) for at in range(20)]
            events += [{**hostile.message(bad, "x"), "signatures": {}} for _ in range(20)]
            hostile.transact(server, events)

    thread = threading.Thread(target=poison)
    thread.start()
    try:
        for number in range(20):
            begin = time.monotonic()
            event = hostile.place(right, hostile.message(right, f"{number}"))
            assert hostile.transact(server, [event]) == {id_of(event): {}}
            see(alice, good, id_of(event))
            assert time.monotonic() - begin < SECONDS_MAX
    finally:
        stop.set()
        thread.join()
    assert bodies(room_messages(alice, good)) == [f"{number}" for number in range(20)]


# Connections of who sends too much.
AT_ONCE = 8


class Flood:
    """Good transactions of one server, ever new ones on several connections, whatever is answered."""

    def __init__(self, server, peer):
        self.server, self.peer = server, peer
        # Refused ones, by their ids: status, headers and body of the answer. And how many were taken.
        self.refused, self.taken, self.over = {}, 0, threading.Event()
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(AT_ONCE)]

    def run(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        count = 0
        while not self.over.is_set():
            count += 1
            self.send(connection, f"{number}-{count}")
        connection.close()

    def send(self, connection, transaction_id):
        target, body = path("v1/send/{}", transaction_id), self.body()
        header = authorization("PUT", target, self.peer.name, self.server.name, self.peer.key, body)
        connection.request("PUT", target, canonical(body), {"Authorization": header})
        response = connection.getresponse()
        answer = json.loads(response.read())
        with self.changed:
            if response.status == 200:
                self.taken += 1
            else:
                self.refused[transaction_id] = response.status, response.headers["Retry-After"], answer
            self.changed.notify_all()

    def body(self):
        return {"origin": self.peer.name, "origin_server_ts": now_ms(), "pdus": [], "edus": []}

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def until_refused(self, more):
        with self.changed:
            wanted = len(self.refused) + more
            assert self.changed.wait_for(lambda: len(self.refused) >= wanted, 120), self.taken


def test_each_server_has_a_budget_of_its_own(network, tmp_path, hostile, honest):
    """Who sends more transactions than that is told when to come again, and what was refused is taken then."""
    with sound(network.server(tmp_path, "--rate-limits", "on")) as server:
        alice = Client(server.base_url).register("alice")
        room = alice.create_room(preset="public_chat", room_version="11")
        copy, theirs = hostile.join(server, room), honest.join(server, room)
        with Flood(server, hostile) as flood:
            flood.until_refused(1)
            for number in range(20):
                # Meanwhile the flood goes on.
                flood.until_refused(1)
                begin = time.monotonic()
                event = honest.place(theirs, honest.message(theirs, f"{number}"))
                assert honest.transact(server, [event]) == {id_of(event): {}}
                see(alice, room, id_of(event))
                assert time.monotonic() - begin < SECONDS_MAX
        assert flood.taken >= 1_000, "a large server may send so many at once"
        for status, retry_after, answer in flood.refused.values():
            assert (status, answer["errcode"], retry_after) == (429, "M_LIMIT_EXCEEDED", "1"), answer
            assert 0 < answer["retry_after_ms"] <= 10, "a hundred are given back in a second"
        event = hostile.message(copy, "once more")

        def is_taken():
            target = path("v1/send/{}", next(iter(flood.refused)))
            status, answer = hostile.send(server, "PUT", target, {**flood.body(), "pdus": [event]})
            assert (status, answer) in [(200, {"pdus": {id_of(event): {}}})] or status == 429
            return status == 200

        until(is_taken)
        see(alice, room, id_of(event))


class Encrypted(Participant):
    """Sends what it sends over TLS, to the port that is for servers."""

    def connection(self, server):
        trust = ssl.create_default_context(cafile=server.authorities)
        return http.client.HTTPSConnection("127.0.0.1", server.federation_port, timeout=SECONDS_AWAITED, context=trust)


# The least open files that a server starts with, and the connections that it may have open then.
LEAST_FILES, CONNECTIONS = 704, 64
# What a handshake may take, and how long this side waits for anything.
HANDSHAKE_SECONDS, SECONDS_AWAITED = 10, 60
# Half as many again as there are places for: the rest of them come after the first ones, and before whoever comes then.
SILENT = CONNECTIONS + CONNECTIONS // 2


def client_hello():
    """How a handshake begins that is right so far."""
    sent, context = ssl.MemoryBIO(), ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


def never_done(server, sent):
    """A connection on which a handshake is begun, or not even that, and nothing comes after it."""
    connection = socket.create_connection(("127.0.0.1", server.federation_port), timeout=SECONDS_AWAITED)
    connection.sendall(sent)
    return connection


def until_ended(connection):
    """Reads what the server says, until it ends the connection."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass


def test_handshakes_that_are_never_done_keep_nobody_out(network, tmp_path):
    """They take all places there are, and the queue for them, for as long as a handshake may take."""
    address = f"http://127.0.0.1:{free_port()}"
    server = Warren(tmp_path / "data", network.authority, *network.options, "--metrics-listen", address)
    server.authorities = network.authority.path
    with sound(limited(server, f"-n {LEAST_FILES}")):
        honest = network.peer(kind=Encrypted)
        alice = Client(server.base_url).register("alice")
        room = alice.create_room(preset="public_chat", room_version="11")
        copy = honest.join(server, room)
        alice.sync()
        hello = client_hello()
        begin = time.monotonic()
        held = [never_done(server, (b"", hello[:20], hello)[number % 3]) for number in range(SILENT)]
        # One place is for whoever comes to the clients' port next.
        until(lambda: figure(address, "warren_connections_open") >= CONNECTIONS - 1)
        event = honest.place(copy, honest.message(copy, "in spite of them"))
        assert honest.transact(server, [event]) == {id_of(event): {}}
        assert time.monotonic() - begin < HANDSHAKE_SECONDS + SECONDS_MAX
        see(alice, room, id_of(event))
        for connection in held:
            until_ended(connection)
            connection.close()
        assert time.monotonic() - begin < 2 * HANDSHAKE_SECONDS + SECONDS_MAX
        begin = time.monotonic()
        sent = alice.send(room, "and on")
        honest.until(lambda: sent in [id_of(pdu) for pdu in honest.pdus])
        event = honest.place(copy, honest.message(copy, "and on and on"))
        assert honest.transact(server, [event]) == {id_of(event): {}}
        assert time.monotonic() - begin < SECONDS_MAX
