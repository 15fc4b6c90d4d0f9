"""Who is there, as servers tell each other when one comes into a room of the other (server-server API, "Presence")."""

from harness.client import Client
from harness.metrics import told
from harness.rooms import via
from harness.server import free_port, sound

PRESENCE = "m.presence"
STATUS = "presence/{userId}/status"


def test_a_server_that_comes_in_is_told_who_is_there(server, alice, bob, resident):
    alice.sync()
    room = alice.create_room(preset="public_chat")
    # Bob never was there.
    bob.join(room)
    resident.join(server, room)
    resident.until(lambda: resident.edus(PRESENCE))
    told = [(update["user_id"], update["presence"]) for edu in resident.edus(PRESENCE) for update in edu["push"]]
    assert told == [(alice.user_id, "online")]


def test_what_is_told_before_a_room_is_entered_is_shown_when_it_is(server, alice, carol, resident):
    dave, copy = resident.user("dave"), resident.create()
    alice.sync()
    update = {"presence": "online", "status_msg": "digging", "currently_active": True, "last_active_ago": 5}
    push = {"push": [{"user_id": dave, **update}, {"user_id": resident.user(), **update}]}
    resident.transact(server, edus=[{"edu_type": PRESENCE, "content": push}])
    alice.get(STATUS, resident.user(), status=404, errcode="M_NOT_FOUND")
    alice.join(copy.room_id, query=via(resident))

    def told(answer):
        events = answer.get("presence", {}).get("events", [])
        return [event["content"] for event in events if event["sender"] == resident.user()]

    (content,) = alice.sync_until(told)
    assert (content["presence"], content["status_msg"]) == ("online", "digging")
    status = alice.get(STATUS, resident.user())
    assert (status["presence"], status["status_msg"]) == ("online", "digging")
    # It is for who shares a room with them; and of who is in none nothing is shown.
    carol.get(STATUS, resident.user(), status=403, errcode="M_FORBIDDEN")
    alice.get(STATUS, dave, status=404, errcode="M_NOT_FOUND")


def test_where_presence_is_off_nobody_is_shown_to_be_there(network, tmp_path, resident):
    address = f"127.0.0.1:{free_port()}"
    server = network.server(tmp_path, "--metrics-listen", f"http://{address}")
    push = {"push": [{"user_id": resident.user(), "presence": "online", "last_active_ago": 5}]}

    def tell():
        resident.transact(server, edus=[{"edu_type": PRESENCE, "content": push}])

    def shown(client):
        return client.get(STATUS, resident.user())["presence"]

    with server:
        alice = Client(server.base_url).register("alice")
        resident.join(server, alice.create_room(preset="public_chat"))
        tell()
        assert shown(alice) == "online"
        assert server.stop() == 0
    # It was on before, and it is known who was there.
    server.options += ["--presence", "off"]
    with sound(server):
        tell()
        alice.get(STATUS, resident.user(), status=404, errcode="M_NOT_FOUND")
        answer = Client(server.base_url, alice.user_id, alice.token, alice.device_id).sync()
        assert answer.get("presence", {}).get("events", []) == []
        assert told(f"http://{address}", "warren_federation_edus_dropped_total") == {("presence_off",): 1}
