"""What a server learns that comes into a room of this one's."""


def test_what_is_said_while_a_server_is_on_its_way_comes_to_it(server, alice, resident):
    room = alice.create_room(preset="public_chat", room_version="11")
    join = resident.make_join(server, room)
    alice.send(room, "meanwhile")
    status, answer = resident.send_join(server, join)
    assert status == 200, answer
    # Nothing else has to be said for that.
    resident.until(lambda: resident.bodies)
    alice.send(room, "afterwards")
    resident.until(lambda: len(resident.bodies) > 1)
    assert resident.bodies == ["meanwhile", "afterwards"]
