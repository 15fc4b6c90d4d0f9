"""What administrators are told of deliveries to other servers, under the paths and by the parameters that Synapse documents
("Federation API")."""

import itertools

import pytest

from harness.client import Client
from harness.deliveries import ADMIN, asked, room_with, send_to_device, until_failing
from harness.events import id_of
from harness.metrics import told
from harness.participant import Participant
from harness.peer import now_ms
from harness.server import free_port, sound
from harness.waiting import until


def status_of(admin, peer):
    return asked(admin, f"{ADMIN}/{peer.name}")


@pytest.fixture
def a_b_z(network, warren, alice, admin):
    """The names of three servers. `b` has failed first and has the least, then `a`; `z` fares well. So nothing that is
    ordered by how they fare is ordered by their names."""
    a, b, z = peers = [network.peer(f"{letter}.fares.test", kind=Participant) for letter in "abz"]
    room_id = alice.create_room(preset="public_chat")
    for peer in peers:
        peer.join(warren, room_id)

    def say(*takers):
        event = alice.send(room_id, "hello")
        for peer in takers:
            peer.until(lambda: event in map(id_of, peer.pdus))
            stream_ordering = asked(admin, f"{ADMIN}/{peer.name}/rooms")["rooms"][0]["stream_ordering"]
            until(lambda: status_of(admin, peer)["last_successful_stream_ordering"] >= stream_ordering)

    say(a, b, z)
    for failing, takers in ((b, (a, z)), (a, (z,))):
        failing.is_failing = True
        say(*takers)
        until_failing(admin, failing)
    yield [peer.name for peer in peers]
    for peer in peers:
        peer.close()


def listed(admin, query):
    answer = asked(admin, f"{ADMIN}?{query}")
    return answer, [row["destination"] for row in answer["destinations"]]


def test_destinations_are_listed_in_pages_orders_and_by_their_names(admin, a_b_z):
    a, b, z = a_b_z
    is_listed_in_pages(admin, a, b, z)
    is_listed_by_name(admin, a, b, z)
    is_listed_in_order(admin, a, b, z)


def is_listed_in_pages(admin, *names):
    pages = [
        ("", [0, 1, 2], None),
        ("limit=2", [0, 1], "2"),
        ("limit=2&from=2", [2], None),
        ("limit=1&from=1", [1], "2"),
        ("limit=3", [0, 1, 2], None),
        ("limit=4", [0, 1, 2], None),
        ("from=3", [], None),
        ("from=7", [], None),
        ("dir=f&from=1", [1, 2], None),
        ("dir=b", [2, 1, 0], None),
        ("dir=b&limit=1", [2], "1"),
        ("dir=b&limit=1&from=1", [1], "2"),
        ("dir=b&from=2", [0], None),
    ]
    for query, expected, next_token in pages:
        answer, found = listed(admin, query)
        assert found == [names[at] for at in expected], query
        assert (answer["total"], answer.get("next_token")) == (3, next_token), query


def is_listed_by_name(admin, a, b, z):
    """Of a filtered list, what is filtered is what pages are of."""
    for query, expected, total, next_token in (
        ("destination=a.fares", [a], 1, None),
        ("destination=FARES.TEST", [a, b, z], 3, None),
        (f"destination={b}", [b], 1, None),
        ("destination=.fares.test&limit=2", [a, b], 3, "2"),
        ("destination=.fares.test&from=2", [z], 3, None),
        ("destination=.fares.test&dir=b&limit=1", [z], 3, "1"),
        ("destination=unheard", [], 0, None),
    ):
        answer, found = listed(admin, query)
        assert found == expected, query
        assert (answer["total"], answer.get("next_token")) == (total, next_token), query


def is_listed_in_order(admin, a, b, z):
    for order, expected in (
        ("destination", [a, b, z]),
        ("failure_ts", [z, b, a]),
        ("last_successful_stream_ordering", [b, a, z]),
    ):
        assert listed(admin, f"order_by={order}")[1] == expected, order
        assert listed(admin, f"order_by={order}&dir=b")[1] == expected[::-1], order
        assert listed(admin, f"order_by={order}&dir=b&limit=1&from=1")[1] == expected[1:2], order
    # Those that fail may be tried again meanwhile, so that it is seen of each answer by itself.
    for order in ("retry_last_ts", "retry_interval"):
        for direction in ("f", "b"):
            answer, found = listed(admin, f"order_by={order}&dir={direction}")
            values = [row[order] for row in answer["destinations"]]
            assert sorted(found) == [a, b, z] and values == sorted(values, reverse=direction == "b"), (order, values)
            assert found[0 if direction == "f" else -1] == z and 0 < max(values), order


@pytest.mark.parametrize("query", ["from=-1", "from=x", "limit=-5", "limit=x", "dir=bar", "order_by=bar"])
def test_what_makes_no_sense_is_refused(warren, alice, admin, resident, query):
    room_with(alice, warren, resident)
    answer = asked(admin, f"{ADMIN}?{query}", status=400)
    assert answer["errcode"] == "M_INVALID_PARAM" and query.split("=")[0] in answer["error"]
    assert "must be" in answer["error"], "and what it may be"
    if "order_by" not in query:
        rooms = f"{ADMIN}/{resident.name}/rooms?{query}"
        assert asked(admin, rooms, status=400)["errcode"] == "M_INVALID_PARAM"


def test_the_rooms_of_a_destination_are_listed_in_pages(warren, alice, admin, resident):
    rooms = sorted(room_with(alice, warren, resident)[0] for _ in range(3))
    alice.create_room()
    path = f"{ADMIN}/{resident.name}/rooms"
    for query, expected, next_token in (
        ("", rooms, None),
        ("limit=2", rooms[:2], "2"),
        ("limit=2&from=2", rooms[2:], None),
        ("limit=3", rooms, None),
        ("from=3", [], None),
        ("dir=f&from=1", rooms[1:], None),
        ("dir=b", rooms[::-1], None),
        ("dir=b&limit=1&from=1", rooms[1:2], "2"),
    ):
        answer = asked(admin, f"{path}?{query}")
        assert [row["room_id"] for row in answer["rooms"]] == expected, query
        assert (answer["total"], answer.get("next_token")) == (3, next_token), query
    assert asked(admin, f"{ADMIN}/unheard.test/rooms", status=404)["errcode"] == "M_NOT_FOUND"
    assert asked(alice, path, status=403)["errcode"] == "M_FORBIDDEN"


def test_a_server_that_fares_well_is_told_when_it_last_took_something(warren, alice, admin, resident):
    room_id, _ = room_with(alice, warren, resident)

    def room_at():
        (row,) = asked(admin, f"{ADMIN}/{resident.name}/rooms")["rooms"]
        return row["stream_ordering"]

    def deliver(body):
        """The status once the body is delivered, which is noted a moment after the server has taken it."""
        begin = now_ms()
        alice.send(room_id, body)
        resident.until(lambda: body in resident.bodies)
        until(lambda: (status_of(admin, resident)["last_success_ts"] or 0) >= begin)
        status = status_of(admin, resident)
        assert begin <= status["last_success_ts"] <= now_ms()
        assert status["last_successful_stream_ordering"] >= room_at()
        assert (status["failures"], status["rooms_waiting"], status["messages_waiting"]) == (0, 0, 0)
        assert asked(admin, ADMIN)["destinations"] == [status], "the list says the same"
        return status

    first, second = deliver("1"), deliver("2")
    assert second["last_success_ts"] > first["last_success_ts"]
    assert second["last_successful_stream_ordering"] > first["last_successful_stream_ordering"]
    # It stays what it was when the server does not take what comes next.
    resident.is_failing = True
    alice.send(room_id, "3")
    failing = until_failing(admin, resident)
    assert failing["last_success_ts"] == second["last_success_ts"] <= failing["failure_ts"]
    assert second["last_successful_stream_ordering"] <= failing["last_successful_stream_ordering"] < room_at()


def test_messages_to_devices_are_counted_that_wait_for_a_server(network, tmp_path, resident):
    """One for each time that something was sent to devices of its users: by the metrics as well, until they are delivered."""
    metrics = f"http://127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", metrics)
    password = server.make_administrator("warden")
    with sound(server):
        admin = Client(server.base_url, f"@warden:{server.name}").login(password)
        alice = Client(server.base_url).register("alice")
        room, user = room_with(alice, server, resident)

        names = ["messages_waiting", "rooms_waiting"]

        def shown():
            return [told(metrics, f"warren_federation_destination_{name}").get((resident.name,)) for name in names]

        def until_waiting(*expected):
            """Until it is told how many messages wait for the server, and how many rooms, which is noted a moment after it is so."""
            until(lambda: shown() == [*expected])
            status = status_of(admin, resident)
            (listed,) = asked(admin, ADMIN)["destinations"]
            assert [listed[name] for name in names] == [status[name] for name in names] == [*expected]

        resident.is_failing = True
        send_to_device(alice, {user: {"BOB": {"n": 0}}})
        until_failing(admin, resident)
        # Alice's devices, of which the server was to be told as it came in, are no messages.
        until_waiting(1, 0)
        for number in range(1, 4):
            send_to_device(alice, {user: {"BOB": {"n": number}, "*": {"n": number}}})
            until_waiting(1 + number, 0)
        alice.send(room, "hello")
        until_waiting(4, 1)
        # They are counted after a restart, too.
        server.restart()
        until_waiting(4, 1)
        resident.is_failing = False
        # It is tried again at once when it is heard from.
        assert resident.send(server, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200
        resident.until(lambda: len(resident.edus("m.direct_to_device")) == 4)
        until(lambda: status_of(admin, resident)["messages_waiting"] == 0 and resident.bodies == ["hello"])
        until_waiting(0, 0)


def test_a_server_is_well_again_when_it_takes_what_is_not_kept(warren, alice, admin, resident):
    """Typing alone: nothing else waits for it."""
    room_id, _ = room_with(alice, warren, resident)
    path = "rooms/{roomId}/typing/{userId}"

    def type_something(typing):
        alice.put(path, room_id, alice.user_id, json={"typing": typing, "timeout": 30_000})

    resident.is_failing = True
    type_something(True)
    until_failing(admin, resident)
    resident.is_failing = False
    typing = itertools.cycle((False, True))

    def has_taken_something():
        """It is tried again when it is heard from; while it is left alone it is not kept for it who types."""
        assert resident.send(warren, "GET", "/_matrix/federation/v1/publicRooms")[0] == 200
        type_something(next(typing))
        return resident.edus("m.typing")

    until(has_taken_something)
    until(lambda: status_of(admin, resident)["failures"] == 0)
    status = status_of(admin, resident)
    assert status["failure_ts"] is None and status["last_success_ts"]


def test_rooms_are_told_that_wait_for_federation_to_be_on(warren, alice, admin, resident):
    room_id, _ = room_with(alice, warren, resident)
    event = alice.send(room_id, "hello")
    resident.until(lambda: event in map(id_of, resident.pdus))
    until(lambda: status_of(admin, resident)["rooms_waiting"] == 0)
    assert warren.stop() == 0
    warren.options += ["--federation", "off"]
    warren.start()
    assert status_of(admin, resident)["rooms_waiting"] == 0
    alice.send(room_id, "is anybody there?")
    assert status_of(admin, resident)["rooms_waiting"] == 1
    assert resident.name in [row["destination"] for row in asked(admin, ADMIN)["destinations"]]
