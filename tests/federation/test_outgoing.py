"""What other servers are sent: once and in order, whatever fails in between (server-server API, "Transactions")."""

import re
import threading
import time

import pytest
import requests

from harness.client import Client, unique
from harness.deliveries import ADMIN, asked, room_with, send_to_device, until_failing
from harness.events import id_of
from harness.metrics import told
from harness.participant import SECONDS_MAX, Participant
from harness.peer import now_ms
from harness.server import free_port, sound
from harness.waiting import until

READ = "rooms/{roomId}/receipt/{receiptType}/{eventId}"
NEXT_TRY = "warren_federation_destination_next_try_seconds"
# A first pause after a failure is ten seconds, give or take a fifth; then one of twice as much, within SECONDS_MAX.


def test_events_arrive_once_and_in_order(warren, alice, resident):
    room_id, _ = room_with(alice, warren, resident)
    sent = [str(number) for number in range(120)]
    for body in sent:
        alice.send(room_id, body)
    resident.until(lambda: len(resident.bodies) >= len(sent))
    assert resident.bodies == sent
    ids = [id for id, _ in resident.transactions]
    assert len(ids) == len(set(ids))
    for _, transaction in resident.transactions:
        assert len(transaction["pdus"]) <= 50 and len(transaction["edus"]) <= 100
        assert transaction["origin"] == warren.name
        assert abs(transaction["origin_server_ts"] - now_ms()) < 1000 * SECONDS_MAX


def test_a_redaction_goes_out_though_what_it_redacts_is_not_here(warren, alice, resident):
    room_id, _ = room_with(alice, warren, resident)
    path = "rooms/{roomId}/redact/{eventId}/{txnId}"
    for elsewhere in ("$" + "a" * 43, f"$elsewhere:{resident.name}"):
        redaction = alice.put(path, room_id, elsewhere, unique("txn"))["event_id"]
        resident.until(lambda: redaction in map(id_of, resident.pdus))
        assert resident.events[redaction]["content"]["redacts"] == elsewhere


def test_a_peer_that_fails_gets_everything_when_it_is_back(warren, alice, admin, resident):
    room_id, _ = room_with(alice, warren, resident)
    resident.is_failing = True
    alice.send(room_id, "1")
    resident.until(lambda: resident.tries)
    for body in ("2", "3"):
        alice.send(room_id, body)
    status = until_failing(admin, resident)
    assert status["retry_interval"] > 0 and status["failure_ts"] and status["retry_last_ts"]
    resident.is_failing = False
    resident.until(lambda: len(resident.bodies) >= 3)
    assert resident.bodies == ["1", "2", "3"]
    # What failed was sent again under the same id, and the same.
    first = [(id, transaction["pdus"]) for id, transaction in resident.tries][:2]
    assert first[0] == first[1]


def test_a_peer_that_trickles_its_answer_has_failed(warren, alice, admin, resident):
    """The status says that it has taken the transaction; what follows would hold a place for as long as it likes."""
    room_id, _ = room_with(alice, warren, resident)
    resident.trickle = True
    alice.send(room_id, "1")
    assert until_failing(admin, resident)["failure_ts"]
    resident.trickle = False
    resident.until(lambda: len(resident.tries) >= 2)
    assert resident.tries[0][0] == resident.tries[1][0], "it is the same transaction"


def test_a_peer_that_fails_for_a_moment_learns_who_has_read_what_and_who_is_gone(warren, alice, resident):
    room_id, _ = room_with(alice, warren, resident)
    carol = alice.register("carol")
    carol.join(room_id)

    def say(presence):
        carol.put("presence/{userId}/status", carol.user_id, json={"presence": presence})

    def presences():
        told = [update for edu in resident.edus("m.presence") for update in edu["push"]]
        return [update["presence"] for update in told if update["user_id"] == carol.user_id]

    say("online")
    event_id = alice.send(room_id, "1")
    resident.until(lambda: resident.bodies == ["1"] and "online" in presences())
    resident.is_failing = True
    # This it does not take, and of what comes next it is not even told before it is tried again.
    carol.post(READ, room_id, "m.read", event_id, json={})
    resident.until(lambda: len(resident.tries) > len(resident.transactions))
    say("offline")
    resident.is_failing = False
    resident.until(lambda: resident.edus("m.receipt") and presences()[-1] == "offline")
    (receipt,) = resident.edus("m.receipt")
    assert receipt[room_id]["m.read"][carol.user_id]["event_ids"] == [event_id]


class Slow(Participant):
    """Takes longer to answer a transaction than what counts as prompt."""

    def answer_send(self, *question):
        answer = super().answer_send(*question)
        self.closing.wait(11)
        return answer


def test_a_peer_that_is_slow_gets_everything_once(warren, alice, network):
    """It is left after the transaction that it was slow to take, and goes on behind that one when it has its turn, with what was
    read meanwhile."""
    peer = network.peer(kind=Slow)
    room_id, _ = room_with(alice, warren, peer)
    alice.send(room_id, "1")
    peer.until(lambda: peer.bodies)
    theirs = peer.message(peer.copies[room_id], "theirs")
    assert peer.transact(warren, [theirs]) == {id_of(theirs): {}}
    alice.post(READ, room_id, "m.read", id_of(theirs), json={})
    for body in ("2", "3"):
        alice.send(room_id, body)
    peer.until(lambda: len(peer.bodies) >= 3)
    assert peer.bodies == ["1", "2", "3"]
    assert [list(edu[room_id]["m.read"]) for edu in peer.edus("m.receipt")] == [[alice.user_id]]
    ids = [id for id, _ in peer.tries]
    assert len(ids) == len(set(ids))
    peer.close()


class Counting(Participant):
    """Takes no transaction until it is let, and counts how many were on their way to it at once."""

    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        self.let, self.under_way, self.most = threading.Event(), 0, 0

    def answer_send(self, *question):
        with self.came:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.came.notify_all()
        self.let.wait(SECONDS_MAX)
        answer = super().answer_send(*question)
        # Before it is answered, and so before another may come.
        with self.came:
            self.under_way -= 1
        return answer


def test_one_transaction_at_a_time_is_on_its_way_to_a_server(warren, alice, admin, network, resident):
    """Whatever else there is for it meanwhile, and though it is heard from: others are sent that at once."""
    peer = network.peer(kind=Counting)
    room_id, user_id = room_with(alice, warren, peer)
    resident.join(warren, room_id)
    sent = [str(number) for number in range(120)]
    for number, body in enumerate(sent):
        alice.send(room_id, body)
        if number % 10 == 0:
            send_to_device(alice, {user_id: {"BOB": {"n": number}}})
            typing = {"typing": number % 20 == 0, "timeout": 30000}
            alice.put("rooms/{roomId}/typing/{userId}", room_id, alice.user_id, json=typing)
            assert peer.send(warren, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200
    asked(admin, f"{ADMIN}/{peer.name}/reset_connection", "POST", 400)
    resident.until(lambda: resident.bodies == sent)
    peer.until(lambda: peer.under_way)
    assert (peer.most, peer.transactions) == (1, [])
    peer.let.set()
    peer.until(lambda: len(peer.bodies) >= len(sent) and len(peer.edus("m.direct_to_device")) >= len(sent) // 10)
    assert peer.bodies == sent and peer.most == 1
    assert len(peer.transactions) > 2, "there was occasion for several at once"
    peer.close()


def test_a_peer_that_is_heard_from_is_tried_at_once(warren, alice, admin, resident):
    room_id, _ = room_with(alice, warren, resident)
    resident.is_failing = True
    alice.send(room_id, "1")
    until(lambda: asked(admin, f"{ADMIN}/{resident.name}")["failures"] == 2)
    resident.is_failing = False
    # The second pause is sixteen seconds at least.
    assert asked(admin, f"{ADMIN}/{resident.name}")["retry_interval"] >= 16_000
    before = now_ms()
    assert resident.send(warren, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200
    resident.until(lambda: resident.bodies == ["1"])
    until(lambda: asked(admin, f"{ADMIN}/{resident.name}")["failures"] == 0)
    taken_ms = asked(admin, f"{ADMIN}/{resident.name}")["last_success_ts"]
    assert taken_ms - before < 5_000, "it was left alone though it had shown that it is there"


def asks(warren, _alice, peer):
    assert peer.send(warren, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200


def answers(_warren, alice, peer):
    peer.answers[PROFILE] = lambda _: (200, {"displayname": "Bee"})
    assert alice.get("profile/{userId}", f"@bee:{peer.name}")["displayname"] == "Bee"


@pytest.mark.parametrize("live", [asks, answers])
def test_a_sign_of_life_right_after_a_failure_is_not_forgotten(warren, alice, admin, resident, live):
    """There is one alone. The second pause is sixteen seconds at least."""
    room_id, _ = room_with(alice, warren, resident)
    resident.is_failing = True
    alice.send(room_id, "1")
    until(lambda: asked(admin, f"{ADMIN}/{resident.name}")["failures"] == 2)
    before = asked(admin, f"{ADMIN}/{resident.name}")
    resident.is_failing = False
    live(warren, alice, resident)
    resident.until(lambda: resident.bodies == ["1"])
    assert now_ms() < before["retry_last_ts"] + before["retry_interval"]


class Hanging(Participant):
    """Does not answer the second attempt before it is let."""

    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        self.let = threading.Event()

    def answer_send(self, *question):
        answer = super().answer_send(*question)
        if len(self.tries) == 2:
            self.let.wait(SECONDS_MAX)
        return answer


@pytest.mark.parametrize("live", [asks, answers])
def test_a_sign_of_life_during_an_attempt_shortens_the_pause_behind_it(warren, alice, admin, network, live):
    """The second pause is sixteen seconds at least, but there is none after a sign of life."""
    peer = network.peer(kind=Hanging)
    room_id, _ = room_with(alice, warren, peer)
    peer.is_failing = True
    alice.send(room_id, "1")
    peer.until(lambda: len(peer.tries) == 2)
    live(warren, alice, peer)
    peer.is_failing = False
    peer.let.set()
    released = time.monotonic()
    peer.until(lambda: peer.bodies == ["1"])
    assert time.monotonic() - released < 8
    peer.close()


def test_how_long_a_peer_is_left_alone_survives_a_restart(network, tmp_path, resident):
    """It has failed twice, so that the pause is sixteen seconds at least. A sign of life ends it all the same."""
    address = f"http://127.0.0.1:{free_port()}"
    server, other = network.server(tmp_path, "--metrics-listen", address), network.peer(kind=Participant)
    password = server.make_administrator("warden")
    with sound(server):
        alice, admin = Client(server.base_url).register("alice"), Client(server.base_url, "@warden:" + server.name)
        admin = admin.login(password)
        room_id, _ = room_with(alice, server, resident)
        other.join(server, room_id)
        resident.is_failing = True
        alice.send(room_id, "1")

        def state():
            """As administrators are told, and by the metrics."""
            names = ("failures", "failure_ts", "retry_last_ts", "retry_interval")
            status = asked(admin, f"{ADMIN}/{resident.name}")
            return [status[name] for name in names], told(address, NEXT_TRY)[resident.name,]

        until(lambda: asked(admin, f"{ADMIN}/{resident.name}")["failures"] == 2)
        (_, _, failed_ms, pause_ms), next_try = before = state()
        assert next_try == (failed_ms + pause_ms) // 1000 and 16_000 <= pause_ms <= 24_000
        tries = len(resident.tries)
        server.restart()
        alice.http.close()
        admin.http.close()
        assert state() == before
        # What comes now is for both servers, of which only the other is sent it.
        alice.send(room_id, "2")
        other.until(lambda: other.bodies == ["1", "2"])
        assert len(resident.tries) == tries == 2 and state() == before
        resident.is_failing = False
        while not resident.bodies:
            assert resident.send(server, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200
            with resident.came:
                resident.came.wait(1)
        assert now_ms() < failed_ms + pause_ms
        resident.until(lambda: resident.bodies == ["1", "2"])
        until(lambda: asked(admin, f"{ADMIN}/{resident.name}")["failures"] == 0)


def test_what_is_for_a_server_that_is_not_dealt_with_waits_and_is_no_failure(network, tmp_path, resident):
    address = f"http://127.0.0.1:{free_port()}"
    server, other = network.server(tmp_path, "--metrics-listen", address), network.peer(kind=Participant)
    password = server.make_administrator("warden")
    with sound(server):
        alice = Client(server.base_url).register("alice")
        admin = Client(server.base_url, "@warden:" + server.name).login(password)
        room_id, _ = room_with(alice, server, resident)
        other.join(server, room_id)
        alice.send(room_id, "1")
        resident.until(lambda: resident.bodies == ["1"])

        def restart():
            server.restart()
            alice.http.close()
            admin.http.close()

        usual = server.options
        server.options = [*usual, "--federation-deny", resident.name.split(":")[0]]
        restart()
        for body in ("2", "3"):
            alice.send(room_id, body)
            other.until(lambda body=body: other.bodies[-1:] == [body])
        status = asked(admin, f"{ADMIN}/{resident.name}")
        assert (status["failures"], status["retry_interval"], status["failure_ts"]) == (0, 0, None)
        metrics = requests.get(f"{address}/metrics", timeout=10).text
        assert "\nwarren_federation_destinations_failing 0\n" in metrics
        assert re.search(r"^warren_engine_destinations_backing_off 0(\.0)?$", metrics, re.MULTILINE)
        assert resident.name not in metrics, "what waits for it waits for whoever runs the server"
        assert resident.bodies == ["1"]
        server.options = usual
        restart()
        # That the first was taken may not have been noted before the stop.
        resident.until(lambda: list(dict.fromkeys(resident.bodies)) == ["1", "2", "3"])


PROFILE = "/_matrix/federation/v1/query/profile"


def test_a_connection_that_is_closed_as_it_is_used_again_costs_no_request(warren, alice, network):
    peer = network.peer(kind=Participant)
    room_with(alice, warren, peer)
    peer.answers[PROFILE] = lambda _: (200, {"displayname": "Bee"})
    peer.closes_reused = True

    def is_told():
        assert alice.get("profile/{userId}", f"@{unique('bee')}:{peer.name}")["displayname"] == "Bee"
        return peer.lost

    until(is_told)


def test_a_connection_that_is_closed_before_its_first_answer_is_not_tried_again(warren, alice, network):
    """Who does that may do it for ever."""
    peer = network.peer()
    peer.answers[PROFILE] = lambda _: (200, {"displayname": "Bee"})
    peer.closes_all = True
    alice.get("profile/{userId}", f"@bee:{peer.name}", status=502)
    assert len(peer.lost) == 1


class Asking(Participant):
    """Asks to be left alone, as long as it fails."""

    failure = None

    def answer_send(self, *question):
        status, answer = super().answer_send(*question)
        return (status, answer) if status == 200 else self.failure


class Busy(Asking):
    """For an hour, because it was asked too often."""

    failure = 429, {"errcode": "M_LIMIT_EXCEEDED", "error": "Not so much", "retry_after_ms": 3_600_000}


class Maintained(Asking):
    """For a day, by what stands before it, for maintenance."""

    failure = 503, {"errcode": "M_UNKNOWN", "error": "Maintenance", "retry_after_ms": 86_400_000}


def test_a_maintenance_page_silences_no_peer_for_a_day(network, tmp_path):
    server, maintained = network.server(tmp_path), network.peer(kind=Maintained)
    password = server.make_administrator("warden")
    with sound(server):
        alice = Client(server.base_url).register("alice")
        admin = Client(server.base_url, "@warden:" + server.name).login(password)
        room_id, _ = room_with(alice, server, maintained)
        maintained.is_failing = True

        def pause_ms():
            status = asked(admin, f"{ADMIN}/{maintained.name}")
            return status["failures"] and status["retry_interval"]

        alice.send(room_id, "1")
        assert until(pause_ms) == 600_000
    maintained.close()


def test_a_peer_that_asks_to_be_left_alone_is_after_a_restart_too(network, tmp_path, resident):
    server, busy = network.server(tmp_path), network.peer(kind=Busy)
    password = server.make_administrator("warden")
    with sound(server):
        alice = Client(server.base_url).register("alice")
        admin = Client(server.base_url, "@warden:" + server.name).login(password)
        room_id, _ = room_with(alice, server, busy)
        resident.join(server, room_id)
        busy.is_failing = True

        def pause_ms():
            status = asked(admin, f"{ADMIN}/{busy.name}")
            return status["failures"] and status["retry_interval"]

        alice.send(room_id, "1")
        assert until(pause_ms) == 3_600_000
        tries = len(busy.tries)
        server.restart()
        alice.http.close()
        admin.http.close()
        assert pause_ms() == 3_600_000
        alice.send(room_id, "2")
        # Where the server was stopped before it noted that the first was taken, that comes once more.
        resident.until(lambda: resident.bodies[-1:] == ["2"])
        assert len(busy.tries) == tries and pause_ms() == 3_600_000
    busy.close()


def test_what_was_queued_survives_the_death_of_the_server(network, tmp_path, resident):
    server = network.server(tmp_path)
    with server:
        alice = Client(server.base_url).register("alice")
        room_id, user_id = room_with(alice, server, resident)
        resident.is_failing = True
        alice.send(room_id, "1")
        resident.until(lambda: resident.tries)
        alice.send(room_id, "2")
        send_to_device(alice, {user_id: {"BOB": {"n": 1}}})
        server.kill()
    resident.is_failing = False
    with server:
        resident.until(lambda: len(resident.bodies) >= 2 and resident.edus("m.direct_to_device"))
        assert resident.bodies == ["1", "2"]
        taken = [id for id, _ in resident.transactions]
        assert taken[0] == resident.tries[0][0], "the transaction under way was repeated"
        assert len(resident.edus("m.direct_to_device")) == 1
        assert server.stop() == 0, server.log_tail()
        server.check()


def test_messages_to_devices_come_once(warren, alice, resident):
    _, user_id = room_with(alice, warren, resident)
    send_to_device(alice, {user_id: {"BOB": {"n": 1}, "*": {"n": 2}}})
    resident.until(lambda: resident.edus("m.direct_to_device"))
    send_to_device(alice, {user_id: {"BOB": {"n": 3}}})
    resident.until(lambda: len(resident.edus("m.direct_to_device")) >= 2)
    first, second = resident.edus("m.direct_to_device")
    assert first["messages"] == {user_id: {"BOB": {"n": 1}, "*": {"n": 2}}}
    assert second["messages"] == {user_id: {"BOB": {"n": 3}}}
    assert first["sender"] == alice.user_id and first["type"] == "m.test"
    assert first["message_id"] != second["message_id"]


def test_typing_and_receipts_are_told(warren, alice, resident):
    room_id, _ = room_with(alice, warren, resident)
    carol = alice.register("carol")
    carol.join(room_id)
    event_id = alice.send(room_id, "1")
    carol.put("rooms/{roomId}/typing/{userId}", room_id, carol.user_id, json={"typing": True, "timeout": 30000})
    carol.post(READ, room_id, "m.read", event_id, json={})
    resident.until(lambda: resident.edus("m.typing") and resident.edus("m.receipt"))
    assert resident.edus("m.typing")[0] == {"room_id": room_id, "user_id": carol.user_id, "typing": True}
    assert resident.edus("m.receipt")[0][room_id]["m.read"][carol.user_id]["event_ids"] == [event_id]


class Held(Participant):
    """Answers no transaction while a test holds it up."""

    def __init__(self, host, authority, **more):
        super().__init__(host, authority, **more)
        self.let, self.is_held = threading.Event(), threading.Event()
        self.let.set()

    def answer_send(self, *question):
        if not self.let.is_set():
            self.is_held.set()
            self.let.wait(SECONDS_MAX)
        return super().answer_send(*question)


def test_a_server_that_was_turned_out_learns_nothing_of_what_comes_after(warren, alice, network):
    """What waited for it since it was in the room says how things are when it goes out."""
    peer = network.peer(kind=Held)
    room_id, user_id = room_with(alice, warren, peer)
    carol = alice.register("carol")
    carol.join(room_id)
    peer.until(lambda: peer.edus("m.device_list_update"))
    peer.let.clear()
    before = alice.send(room_id, "before")
    assert peer.is_held.wait(SECONDS_MAX)
    count = len(peer.transactions)

    def act(event_id, word):
        carol.post(READ, room_id, "m.read", event_id, json={})
        status = {"presence": "unavailable", "status_msg": word}
        carol.put("presence/{userId}/status", carol.user_id, json=status)
        carol.put("devices/{deviceId}", carol.device_id, json={"display_name": word})
        typing = {"typing": True, "timeout": 30000}
        carol.put("rooms/{roomId}/typing/{userId}", room_id, carol.user_id, json=typing)

    act(before, "still")
    alice.post("rooms/{roomId}/kick", room_id, json={"user_id": user_id})
    act(alice.send(room_id, "after"), "since")
    peer.let.set()
    peer.until(lambda: any(event["content"].get("membership") == "leave" for event in peer.pdus))
    # All but what was on its way was made after it had been turned out.
    later = [transaction for _, transaction in peer.transactions[count + 1 :]]
    assert [transaction["edus"] for transaction in later if transaction["edus"]] == []
    assert peer.bodies == ["before"]
    peer.close()


def test_administrators_see_how_deliveries_fare(warren, alice, admin, resident):
    room_id, _ = room_with(alice, warren, resident)
    alice.send(room_id, "1")
    resident.until(lambda: resident.bodies)
    listed = asked(admin, ADMIN)
    assert listed["total"] == 1 and [row["destination"] for row in listed["destinations"]] == [resident.name]
    assert asked(admin, f"{ADMIN}?destination=unheard")["total"] == 0
    status = asked(admin, f"{ADMIN}/{resident.name}")
    assert (status["retry_last_ts"], status["retry_interval"], status["failure_ts"]) == (0, 0, None)
    rooms = asked(admin, f"{ADMIN}/{resident.name}/rooms")
    assert [room["room_id"] for room in rooms["rooms"]] == [room_id] and rooms["total"] == 1
    reset = f"{ADMIN}/{resident.name}/reset_connection"
    assert asked(admin, reset, "POST", 400)["errcode"] == "M_UNKNOWN"
    assert asked(admin, f"{ADMIN}/unheard.test", status=404)["errcode"] == "M_NOT_FOUND"
    assert asked(alice, ADMIN, status=403)["errcode"] == "M_FORBIDDEN"
    # One that is left alone is tried at once when an administrator wants it.
    resident.is_failing = True
    alice.send(room_id, "2")
    resident.until(lambda: len(resident.tries) > len(resident.transactions))
    until_failing(admin, resident)
    resident.is_failing = False
    asked(admin, reset, "POST")
    resident.until(lambda: resident.bodies == ["1", "2"])


def test_what_waits_is_told_after_a_restart_too(network, tmp_path, resident):
    """Before the server, which is left alone, is tried again."""
    address = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", address)

    def of_resident(figure):
        return told(address, f"warren_federation_destination_{figure}").get((resident.name,))

    with server:
        alice = Client(server.base_url).register("alice")
        room_id, _ = room_with(alice, server, resident)
        alice.send(room_id, "1")
        resident.until(lambda: resident.bodies == ["1"])
        resident.is_failing = True
        alice.send(room_id, "2")
        until(lambda: of_resident("failures") == 1)
        assert server.stop() == 0
    with server:
        until(lambda: of_resident("rooms_waiting") == 1)
        assert of_resident("failures") == 1
        assert server.stop() == 0


def test_metrics_tell_of_servers_that_fail(network, tmp_path, resident):
    address = f"http://127.0.0.1:{free_port()}"
    with network.server(tmp_path, "--metrics-listen", address) as server:
        alice = Client(server.base_url).register("alice")
        room_id, user_id = room_with(alice, server, resident)

        def of_resident(figure):
            return told(address, f"warren_federation_destination_{figure}").get((resident.name,))

        alice.send(room_id, "1")
        resident.until(lambda: resident.bodies == ["1"])
        until(lambda: of_resident("last_success_seconds") and of_resident("rooms_waiting") == 0)
        assert [of_resident(name) for name in ("failures", "messages_waiting", "next_try_seconds")] == [0, 0, 0]
        assert "\nwarren_federation_destinations_known 1\n" in requests.get(f"{address}/metrics", timeout=10).text
        resident.is_failing = True
        before = time.time()
        alice.send(room_id, "2")
        send_to_device(alice, {user_id: {"BOB": {"n": 1}}})
        until(lambda: of_resident("failures"))
        assert (of_resident("rooms_waiting"), of_resident("messages_waiting")) == (1, 1)
        assert of_resident("next_try_seconds") > before >= of_resident("last_success_seconds") - 1 > before - 60
        assert "\nwarren_federation_destinations_failing 1\n" in requests.get(f"{address}/metrics", timeout=10).text
        resident.is_failing = False
        resident.until(lambda: resident.bodies == ["1", "2"])
        until(lambda: of_resident("failures") == 0)
