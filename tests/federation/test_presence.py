"""Who is there, as servers tell each other when one comes into a room of the other (server-server API, "Presence")."""

from harness.rooms import via

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
