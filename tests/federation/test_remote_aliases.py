"""Names of rooms that other servers give (client-server API, `m.room.canonical_alias`): they are asked whether they do."""

import pytest

DIRECTORY = "/_matrix/federation/v1/query/directory"
EVENT = "m.room.canonical_alias"


@pytest.fixture
def room(alice):
    return alice.create_room(preset="public_chat")


def points_to(peer, room):
    peer.answers[DIRECTORY] = lambda _: (200, {"room_id": room, "servers": [peer.name]})


def test_an_alias_that_points_to_the_room(alice, room, peer):
    alias = f"#burrow:{peer.name}"
    points_to(peer, room)
    alice.set_state(room, EVENT, {"alias": alias, "alt_aliases": [alias]})
    assert alice.state(room, EVENT)["alias"] == alias
    assert {request.target for request in peer.asked(DIRECTORY)} == {f"{DIRECTORY}?room_alias={alias.replace('#', '%23').replace(':', '%3A')}"}
    # What is in the state already is not asked for again, as it may have come to point elsewhere.
    peer.requests.clear()
    points_to(peer, "!other:" + peer.name)
    alice.set_state(room, EVENT, {"alt_aliases": [alias]})
    assert peer.asked(DIRECTORY) == []
    # No alias, in all the ways in which clients say it.
    for content in ({"alias": ""}, {"alias": None}, {}):
        alice.set_state(room, EVENT, content)


def test_aliases_that_do_not(alice, room, peer, network):
    alias, gone = f"#burrow:{peer.name}", network.peer()
    points_to(peer, "!other:" + peer.name)
    for content in ({"alias": alias}, {"alt_aliases": [alias]}):
        alice.set_state(room, EVENT, content, status=400, errcode="M_BAD_ALIAS")
    peer.answers[DIRECTORY] = lambda _: (404, {"errcode": "M_NOT_FOUND", "error": "There is no such alias"})
    alice.set_state(room, EVENT, {"alias": alias}, status=400, errcode="M_BAD_ALIAS")
    gone.close()
    alice.set_state(room, EVENT, {"alias": f"#burrow:{gone.name}"}, status=502, errcode="M_UNKNOWN")
    alice.state(room, EVENT, status=404)


def test_what_is_no_alias(alice, room, peer):
    points_to(peer, room)
    for content in ({"alias": "burrow"}, {"alt_aliases": [f"burrow:{peer.name}"]}, {"alias": "#burrow:not a server"}, {"alias": 5}, {"alt_aliases": "x"}, {"alt_aliases": [5]}):
        alice.set_state(room, EVENT, content, status=400, errcode="M_INVALID_PARAM")
    assert peer.asked(DIRECTORY) == []


def test_nobody_is_asked_for_more_than_rooms_have_or_for_strangers(alice, room, peer):
    points_to(peer, room)
    aliases = [f"#burrow{number}:{peer.name}" for number in range(50)]
    alice.set_state(room, EVENT, {"alt_aliases": aliases}, status=400, errcode="M_BAD_ALIAS")
    assert len(peer.asked(DIRECTORY)) == 20
    peer.requests.clear()
    alice.register("bob").set_state(room, EVENT, {"alt_aliases": aliases}, status=403, errcode="M_FORBIDDEN")
    assert peer.asked(DIRECTORY) == []


def test_aliases_of_other_servers_are_theirs(alice, room, peer):
    """They can be reached, and are asked for nothing: an alias is made and removed by its own server."""
    alias = f"#burrow:{peer.name}"
    points_to(peer, room)
    answer = alice.put("directory/room/{roomAlias}", alias, json={"room_id": room}, status=403, errcode="M_FORBIDDEN")
    assert answer["error"] == "this user or alias belongs to another server"
    alice.delete("directory/room/{roomAlias}", alias, status=404, errcode="M_NOT_FOUND")
    assert peer.asked(DIRECTORY) == []
    assert alice.get("directory/room/{roomAlias}", alias)["room_id"] == room
