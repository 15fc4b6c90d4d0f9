"""Whoever makes this server ask others, and however silent these are, stops neither it nor anybody else.

The class of fault: each question to a server takes a file of this process, and the store cannot do without its own.
"""

import concurrent.futures
import contextlib
import itertools
import socket
import threading

import pytest
import requests

from harness.client import Client, address, bodies, timeline, unique
from harness.events import id_of
from harness.metrics import told, until_at_work
from harness.participant import Participant, path
from harness.policies import SIGN, enable, signs
from harness.server import free_port, limited, sound
from harness.waiting import until

# Open files that leave seven places for questions: six for users, of whom each has three, and one for strangers.
FEW_FILES, OF_USER, OF_STRANGERS = 800, 3, 1
# Names in one query for keys, and who sends at once.
SERVERS_OF_QUERY, AT_ONCE = 300, 8
STRANGERS_AT_ONCE = 40
# As many as are taken at once.
INVITES_OF_ADDRESS = 20
# Within the time that a healthy server takes.
SECONDS_MAX = 8
MESSAGES = 20
PROFILE = path("v1/query/profile")


class SilentHost:
    """Takes connections at any address of this machine, and never says a word."""

    def __init__(self):
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.numbers, self.changing = itertools.count(), threading.Lock()
        self.connections, self.taken, self.most = set(), 0, 0
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with self.changing:
                    self.connections.add(connection)
                    self.taken += 1
                    self.most = max(self.most, len(self.connections))
                threading.Thread(target=self.read, args=(connection,), daemon=True).start()

    def read(self, connection):
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        with self.changing:
            self.connections.discard(connection)
        connection.close()

    def name(self):
        """Of a server that there is not, which is here."""
        with self.changing:
            number = next(self.numbers)
        return f"127.{20 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}:{self.port}"

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.changing:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def silent_host():
    host = SilentHost()
    yield host
    host.close()


class Flood:
    """What `ask` sends again and again, at once."""

    def __init__(self, ask, at_once):
        self.ask, self.over, self.answers = ask, threading.Event(), []
        self.threads = [threading.Thread(target=self.run) for _ in range(at_once)]

    def run(self):
        while not self.over.is_set():
            self.answers.append(self.ask().status_code)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def keys_flood(server, host):
    """One user asks for keys of users of any number of servers."""
    mallory = Client(server.base_url).register("mallory")

    def ask():
        body = {"device_keys": {f"@x:{host.name()}": [] for _ in range(SERVERS_OF_QUERY)}}
        headers = {"Authorization": f"Bearer {mallory.token}"}
        return requests.post(f"{server.base_url}/_matrix/client/v3/keys/query", json=body, headers=headers, timeout=60)

    return Flood(ask, AT_ONCE)


def aliases_flood(server, host):
    """Somebody without an account looks up aliases of any number of servers."""

    def ask():
        alias = f"%23a:{host.name()}"
        return requests.get(f"{server.base_url}/_matrix/client/v3/directory/room/{alias}", timeout=60)

    return Flood(ask, STRANGERS_AT_ONCE)


def bindings_flood(server, host):
    """Somebody without an account tells of addresses, to which users of any number of servers are said to have invited."""
    mallory = Client(server.base_url).register("mallory")

    def ask():
        invites = [
            {"room_id": "!a:b.test", "sender": f"@x:{host.name()}", "signed": {}} for _ in range(INVITES_OF_ADDRESS)
        ]
        body = {"medium": "email", "address": "bee@example.org", "mxid": mallory.user_id, "invites": invites}
        return requests.put(f"{server.base_url}/_matrix/federation/v1/3pid/onbind", json=body, timeout=60)

    return Flood(ask, STRANGERS_AT_ONCE)


@pytest.mark.parametrize(
    "make_flood, places, statuses",
    [
        (keys_flood, OF_USER, {200}),
        (aliases_flood, OF_STRANGERS, {502, 503}),
        (bindings_flood, OF_STRANGERS, {200, 429}),
    ],
)
def test_questions_to_silent_servers_stop_nobody(network, tmp_path, honest, silent_host, make_flood, places, statuses):
    """Rooms, files, deliveries and other users' questions go on, and few connections are open at once."""
    with sound(limited(network.server(tmp_path), f"-n {FEW_FILES}")) as server:
        alice = Client(server.base_url).register("alice")
        room = alice.create_room(preset="public_chat", room_version="11")
        honest.join(server, room)
        # This server has no connection to it that would be kept.
        other = network.peer(kind=Participant)
        other.answers[PROFILE] = lambda _: (200, {"displayname": "Bee"})
        with make_flood(server, silent_host) as flood:
            # Each has had its time, and some went on in their places.
            until(lambda: silent_host.taken > places)
            for number in range(MESSAGES):
                alice.send(room, f"{number}")
            honest.until(lambda: f"{MESSAGES - 1}" in honest.bodies, SECONDS_MAX)
            alice.create_room()
            upload = alice.send_raw("POST", "/_matrix/media/v3/upload", data=b"bees" * 5_000)
            assert upload.status_code == 200, upload.text
            assert alice.get("profile/{userId}", f"@bee:{other.name}")["displayname"] == "Bee"
            until(lambda: flood.answers)
            # Those that are being closed are counted still when the next ones come.
            assert silent_host.most <= 2 * places
            silent_host.close()
        assert set(flood.answers) <= statuses
        alice.send(room, "and on")
        honest.until(lambda: "and on" in honest.bodies, SECONDS_MAX)


def test_files_that_do_not_come_leave_places_to_their_users_other_questions(network, tmp_path, silent_host):
    with sound(limited(network.server(tmp_path), f"-n {FEW_FILES}")) as server:
        mallory = Client(server.base_url).register("mallory")
        other = network.peer(kind=Participant)
        other.answers[PROFILE] = lambda _: (200, {"displayname": "Bee"})

        def download():
            url = f"{server.base_url}/_matrix/client/v1/media/download/{silent_host.name()}/bee"
            return requests.get(url, headers={"Authorization": f"Bearer {mallory.token}"}, timeout=60)

        with Flood(download, AT_ONCE) as flood:
            # The first answers are to those that got no place: the others have theirs.
            until(lambda: flood.answers)
            assert 503 in flood.answers and silent_host.taken
            assert mallory.get("profile/{userId}", f"@bee:{other.name}")["displayname"] == "Bee"
            silent_host.close()
        assert set(flood.answers) <= {404, 503}


DOWNLOAD = "/_matrix/federation/v1/media/download/"
FILE = b"bees" * 500


def multipart(headers, body=b""):
    content = b"--here\r\nContent-Type: application/json\r\n\r\n{}\r\n--here\r\n" + headers + b"\r\n\r\n" + body
    return 200, content + b"\r\n--here--\r\n", {"Content-Type": "multipart/mixed; boundary=here"}


def whole_file(_):
    return multipart(b"Content-Type: text/plain", FILE)


def download(client, peer, media_id, seconds=60):
    return requests.get(
        f"{client.base_url}/_matrix/client/v1/media/download/{peer.name}/{media_id}",
        headers={"Authorization": f"Bearer {client.token}"},
        timeout=seconds,
    )


@pytest.fixture
def gate():
    """What peers wait at, until the test opens it or ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_who_waits_for_his_own_places_keeps_nobody_from_the_same_file(network, tmp_path, gate):
    with sound(limited(network.server(tmp_path), f"-n {FEW_FILES}")) as server:
        alice, mallory = (Client(server.base_url).register(name) for name in ("alice", "mallory"))
        other = network.peer(kind=Participant)
        other.answers[DOWNLOAD + "held"] = lambda _: gate.wait(60) and whole_file(_)
        other.answers[DOWNLOAD + "wanted"] = whole_file
        # The only place for a file that she has.
        with Flood(lambda: download(mallory, other, "held"), 1) as held:
            until(lambda: other.asked(DOWNLOAD + "held"))
            held.over.set()
            with Flood(lambda: download(mallory, other, "wanted"), AT_ONCE) as flood:
                # Some have waited in vain, and others wait.
                until(lambda: flood.answers)
                assert flood.answers[0] == 503
                response = download(alice, other, "wanted", SECONDS_MAX)
                assert (response.status_code, response.content) == (200, FILE)
                flood.over.set()
            gate.set()
        assert held.answers == [200]
        assert len(other.asked(DOWNLOAD + "wanted")) == 1


def test_a_file_that_is_elsewhere_has_its_place_while_it_is_fetched(network, tmp_path, gate):
    with sound(limited(network.server(tmp_path), f"-n {FEW_FILES}")) as server:
        mallory = Client(server.base_url).register("mallory")
        other, elsewhere = network.peer(kind=Participant), network.peer()
        elsewhere.answers["/held"] = lambda _: gate.wait(60) and (200, FILE, {"Content-Type": "text/plain"})
        other.answers[DOWNLOAD + "held"] = lambda _: multipart(f"Location: https://{elsewhere.name}/held".encode())
        other.answers[DOWNLOAD + "another"] = whole_file
        with Flood(lambda: download(mallory, other, "held"), 1) as held:
            until(lambda: elsewhere.asked("/held"))
            held.over.set()
            assert download(mallory, other, "another").status_code == 503
            assert other.asked(DOWNLOAD + "another") == []
            gate.set()
        assert held.answers == [200]
        assert download(mallory, other, "another").content == FILE


def tell_of_room(peer, name):
    """Lets the peer tell of a public room. Returns its id."""
    room_id = f"!{name}:{peer.name}"
    shown = {"room_id": room_id, "name": name, "num_joined_members": 3, "join_rule": "public"}
    shown |= {"world_readable": False, "guest_can_join": False, "children_state": []}
    answer = {"room": shown, "children": [], "inaccessible_children": []}
    peer.answers[path("v1/hierarchy/{}", room_id)] = lambda _: (200, answer)
    return room_id


def space_by(client, *rooms):
    """A space of rooms, each with the servers by which it is found."""
    space = client.create_room(preset="public_chat", creation_content={"type": "m.space"})
    for order, (room_id, *servers) in enumerate(rooms):
        client.set_state(space, "m.space.child", {"via": servers, "order": f"{order}"}, key=room_id)
    return space


def look(client, space, seconds):
    url = f"{client.base_url}/_matrix/client/v1/rooms/{space}/hierarchy"
    return requests.get(url, headers={"Authorization": f"Bearer {client.token}"}, timeout=seconds)


def test_who_waits_for_his_own_places_keeps_nobody_from_a_room_of_a_space(network, tmp_path, silent_host):
    with sound(limited(network.server(tmp_path), f"-n {FEW_FILES}")) as server:
        alice, mallory = (Client(server.base_url).register(name) for name in ("alice", "mallory"))
        other = network.peer(kind=Participant)
        room_id = tell_of_room(other, "wanted")

        def space_of(client, *servers):
            """The room that is wanted comes behind rooms of these servers, all of which are asked for together."""
            return space_by(client, *((f"!x:{name}", name) for name in servers), (room_id, other.name))

        own, full = space_of(alice), space_of(mallory, *(silent_host.name() for _ in range(8)))
        with Flood(lambda: look(mallory, full, 60), 1) as flood:
            until(lambda: silent_host.taken)
            flood.over.set()
            rooms = look(alice, own, SECONDS_MAX).json()["rooms"]
            assert room_id in [room["room_id"] for room in rooms]
            silent_host.close()
        assert flood.answers == [200]


def rooms_of(response):
    assert response.status_code == 200, response.text
    return [room["room_id"] for room in response.json()["rooms"]]


def test_who_looks_at_a_space_beside_others_waits_for_a_silent_server_no_longer_than_they(network, server, gate):
    """All are shown a room that another server tells of, and the silent one is asked once."""
    users = [Client(server.base_url).register("user") for _ in range(5)]
    silent, other = network.peer(), network.peer()
    room_id = tell_of_room(other, "wanted")
    question = path("v1/hierarchy/{}", room_id)
    silent.answers[question] = lambda _: gate.wait(60) and (404, {"errcode": "M_NOT_FOUND", "error": "too late"})
    space = space_by(users[0], (room_id, silent.name, other.name))
    with concurrent.futures.ThreadPoolExecutor(len(users)) as pool:
        for response in pool.map(lambda user: look(user, space, 60), users):
            assert rooms_of(response) == [space, room_id]
    assert len(silent.asked(question)) == 1


def test_where_few_files_may_be_open_servers_of_a_space_are_asked_at_once(network, tmp_path, silent_host):
    """With the limit of many systems: seven that are silent hold up a page no longer than one does."""
    with sound(limited(network.server(tmp_path), "-n 1024")) as server:
        alice, other = Client(server.base_url).register("alice"), network.peer()
        wanted = [tell_of_room(other, f"{number}") for number in range(7)]
        space = space_by(alice, *((room_id, silent_host.name(), other.name) for room_id in wanted))
        assert rooms_of(look(alice, space, 60)) == [space, *wanted]


@pytest.fixture
def at_work(network, tmp_path):
    """A server, and where it tells how many requests it is at."""
    metrics = f"http://127.0.0.1:{free_port()}"
    with sound(network.server(tmp_path, "--metrics-listen", metrics)) as server:
        yield server, metrics


def until_waiting(server, metrics, count):
    """Waits until so many requests have gone as far as they get."""
    until_at_work(metrics, count)
    for _ in range(10):
        requests.get(f"{server.base_url}/_matrix/client/versions", timeout=60)


def test_a_file_that_is_not_to_be_had_is_asked_for_once_however_many_want_it(network, at_work, gate):
    """Who comes later asks again: it may be there by then."""
    server, metrics = at_work
    users = [Client(server.base_url).register("user") for _ in range(5)]
    other, question = network.peer(), DOWNLOAD + "wanted"
    other.answers[question] = lambda _: gate.wait(60) and (404, {"errcode": "M_NOT_FOUND", "error": "not here"})
    with concurrent.futures.ThreadPoolExecutor(len(users)) as pool:
        answers = [pool.submit(download, user, other, "wanted") for user in users]
        until_waiting(server, metrics, len(users))
        gate.set()
        assert [answer.result().status_code for answer in answers] == [404] * len(users)
    assert len(other.asked(question)) == 1
    other.answers[question] = whole_file
    assert download(users[0], other, "wanted").content == FILE


def test_who_has_more_patience_waits_longer_for_an_upload(network, at_work, gate):
    server, metrics = at_work
    hasty, patient = (Client(server.base_url).register(name) for name in ("hasty", "patient"))
    other = network.peer()
    too_early = 504, {"errcode": "M_NOT_YET_UPLOADED", "error": "not now"}
    other.answers[DOWNLOAD + "late"] = lambda request: (
        gate.wait(60) and too_early if "timeout_ms=5" in request.target.split("?") else whole_file(request)
    )
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(download, hasty, other, "late?timeout_ms=5")
        until(lambda: other.asked(DOWNLOAD + "late"))
        second = pool.submit(download, patient, other, "late")
        until_waiting(server, metrics, 2)
        gate.set()
        assert (first.result().status_code, second.result().content) == (504, FILE)


def test_what_had_no_place_for_the_policy_server_may_be_sent_again(network, tmp_path, gate):
    """And it does not count as silent: what others send is asked about."""
    metrics = f"http://127.0.0.1:{free_port()}"
    with sound(limited(network.server(tmp_path, "--metrics-listen", metrics), f"-n {FEW_FILES}")) as server:
        mallory = Client(server.base_url).register("mallory")
        policy, other = signs(network.peer(kind=Participant)), network.peer(kind=Participant)
        room = mallory.create_room(preset="public_chat", room_version="11")
        policy.join(server, room)
        enable(mallory, room, policy)
        copy = other.join(server, room)
        slow = network.peer(kind=Participant)
        slow.answers[PROFILE] = lambda _: gate.wait(60) and (200, {"displayname": "Bee"})

        def ask():
            url = f"{server.base_url}/_matrix/client/v3/profile/@bee:{slow.name}"
            return requests.get(url, headers={"Authorization": f"Bearer {mallory.token}"}, timeout=90)

        again = address("rooms/{roomId}/send/{eventType}/{txnId}", room, "m.room.message", unique("txn"))
        message = {"msgtype": "m.text", "body": "hello"}
        with Flood(ask, STRANGERS_AT_ONCE) as flood:
            # All places are taken, and some have waited in vain.
            until(lambda: flood.answers)
            asked = len(policy.asked(SIGN))
            mallory.put(again, json=message, status=503)
            assert len(policy.asked(SIGN)) == asked
            # It is counted, as those are that have waited.
            assert told(metrics, "warren_federation_requests_total")["no_place",] >= 2
            event = other.message(copy, "of another")
            assert other.transact(server, [event]) == {id_of(event): {}}
            mallory.sync_until(lambda answer: "of another" in bodies(timeline(answer, room)))
            assert len(policy.asked(SIGN)) == asked + 1
            flood.over.set()
            gate.set()
        mallory.put(again, json=message)
        policy.until(lambda: "hello" in policy.bodies)
