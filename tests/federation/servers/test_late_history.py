"""A server that was cut off from one of two others hears late of what was said there, when it has left the room and is
back by way of the other: it is history by then."""

import pytest

from harness.deliveries import ADMIN
from harness.federated import Distant, Warren
from harness.metrics import told
from harness.rooms import everything, see, until_joined, until_membership, via
from harness.server import free_port, sound
from harness.waiting import until
from harness.wire import Wire

# After failures a server is tried again at once when it is heard from, or else after pauses that grow.
SECONDS_MAX = 150


@pytest.fixture
def between(there):
    """The wire by which the server that comes back reaches the other that stayed."""
    wire = Wire(there.federation_port)
    yield wire
    wire.close()


@pytest.fixture
def returning(authority, there, between, tmp_path):
    metrics = f"http://127.0.0.1:{free_port()}"
    options = ["--metrics-listen", metrics, "--federation-resolve", f"{there.name}={between.address}"]
    with sound(Warren(tmp_path / "returning", authority, *options)) as server:
        server.metrics = metrics
        yield server


@pytest.fixture
def distant(authority, there, returning, tmp_path):
    server = Distant(tmp_path / "distant", authority, there, returning)
    server.admin_password = server.make_administrator("warden")
    with sound(server):
        yield server


def kept_as_history(server):
    """How many events the server has left to who pages back."""
    return told(server.metrics, "warren_federation_events_total").get(("dropped", "history"), 0)


def test_what_somebody_said_who_is_gone_by_now_is_in_its_place(there, distant, returning, between, bob):
    alice, dave = (distant.client(distant.base_url).register(name) for name in ("alice", "dave"))
    zoe = returning.client(returning.base_url).register("zoe")
    room = alice.create_room(preset="public_chat", room_version="11")
    dave.join(room)
    for other in (bob, zoe):
        other.join(room, query=via(distant))
    for one, *others in ((alice, bob, zoe), (zoe, bob, dave), (bob, zoe, dave)):
        until_joined(one, room, *others)
    first = alice.send(room, "before")
    see(zoe, room, first)
    see(bob, room, first)
    inward, _, to_returning = distant.ways
    # Nor does it hear that Zoe leaves.
    to_returning.cut()
    inward.cut()
    zoe.post("rooms/{roomId}/leave", room, json={})
    until_membership(bob, room, "leave", zoe)
    late = dave.send(room, "late")
    see(bob, room, late)
    after = bob.send(room, "after")
    dave.post("rooms/{roomId}/leave", room, json={})
    until_membership(bob, room, "leave", dave)
    last = bob.send(room, "dave has left")
    inward.mend()
    zoe.join(room, query=via(there))
    back = zoe.send(room, "back")
    see(bob, room, back)
    see(alice, room, back)
    # What was said late comes as its server sends it, and in no other way: nobody can be asked for it, nor for what follows it.
    inward.cut()
    between.cut()
    was_left = kept_as_history(returning)
    warden = distant.client(distant.base_url, f"@warden:{distant.name}").login(distant.admin_password)
    to_returning.mend()
    # It may have tried again by itself already, which is refused then.
    warden.send_raw("POST", f"{ADMIN}/{returning.name}/reset_connection", json={})
    until(lambda: kept_as_history(returning) > was_left)
    inward.mend()
    between.mend()
    live = alice.send(room, "live")
    see(zoe, room, live, seconds=SECONDS_MAX)
    wanted = [first, late, after, last, back, live]

    def said(_):
        return [event["event_id"] for event in everything(zoe, room) if event["event_id"] in wanted]

    zoe.sync_until(lambda answer: said(answer) == wanted, seconds=SECONDS_MAX)
