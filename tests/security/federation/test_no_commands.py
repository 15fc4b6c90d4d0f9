"""Nothing that another server sends is a command: what administrators do, they do logged in, or at the machine.

The class of fault: commands of administrators that arrive over federation, or are edited into being.
"""

from harness.client import Client
from harness.events import id_of
from harness.rooms import see

ROWS = [
    ("GET", "/_synapse/admin/v1/federation/destinations", None),
    ("POST", "/_synapse/admin/v1/federation/destinations/x.test/reset_connection", {}),
    ("GET", "/_matrix/client/v3/admin/whois/@warden:{0}", None),
    ("PUT", "/_matrix/client/v1/admin/suspend/@warden:{0}", {"suspended": True}),
    ("PUT", "/_matrix/client/v1/admin/lock/@warden:{0}", {"locked": True}),
    ("GET", "/_matrix/client/v3/account/whoami", None),
    ("POST", "/_matrix/client/v3/createRoom", {}),
]


def test_a_signature_of_a_server_opens_nothing_of_users_and_administrators(warren, hostile):
    for method, target, body in ROWS:
        status, answer = hostile.send(warren, method, target.format(warren.name), body)
        assert (status, answer["errcode"]) in [(401, "M_MISSING_TOKEN"), (401, "M_UNKNOWN_TOKEN")], (target, answer)


def test_what_is_said_to_an_administrator_is_only_read(warren, hostile, admin):
    """Neither said, nor edited into being, nor set as a name or a topic."""
    victim = Client(warren.base_url).register("victim")
    room = admin.create_room(preset="public_chat", room_version="11")
    copy = hostile.join(warren, room)
    power = admin.state(room, "m.room.power_levels")
    power["users"][hostile.user()] = 50
    promotion = admin.set_state(room, "m.room.power_levels", power)
    hostile.until(lambda: promotion in hostile.events)
    hostile.place(copy, hostile.events[promotion])
    admin.sync()
    for start in ("!admin", "\\!admin", "/admin", "@conduit:", f"@warden:{warren.name}", "!warren", "warren"):
        for command in ("users deactivate", "user deactivate", "rooms delete", "server shutdown", "users make-admin"):
            text = f"{start} {command} {victim.user_id}"
            hostile.transact(warren, [hostile.next(copy, "m.room.message", {"msgtype": "m.text", "body": text})])
            harmless = hostile.next(copy, "m.room.message", {"msgtype": "m.text", "body": "hello"})
            relation = {"rel_type": "m.replace", "event_id": id_of(harmless)}
            edit = {"msgtype": "m.text", "body": f"* {text}", "m.new_content": {"msgtype": "m.text", "body": text}}
            edited = hostile.next(copy, "m.room.message", {**edit, "m.relates_to": relation})
            member = {"membership": "join", "displayname": text}
            named = hostile.next(copy, "m.room.member", member, state_key=hostile.user())
            topic = hostile.next(copy, "m.room.topic", {"topic": text}, state_key="")
            pdus = [harmless, edited, named, topic]
            assert hostile.transact(warren, pdus) == {id_of(event): {} for event in pdus}
    see(admin, room, id_of(topic))
    assert victim.get("account/whoami")["user_id"] == victim.user_id
    assert victim.login().user_id == victim.user_id
    found = admin.get("rooms/{roomId}/state", room)
    assert {event["sender"] for event in found} == {admin.user_id, hostile.user()}
