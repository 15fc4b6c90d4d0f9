"""Spaces whose rooms are on other servers, which are asked for them: what they tell, rightly, wrongly or not at all."""

import time

import pytest

from harness.client import unique
from harness.participant import path
from harness.waiting import until

HIERARCHY = "/_matrix/client/v1/rooms/{roomId}/hierarchy"
# What a page may take when a server is silent: an answer is waited for four seconds.
SECONDS_MAX = 9
# An answer is remembered for a minute; a refusal far shorter, on a loaded machine, too.
REFUSAL_SECONDS_MAX = 30


def room(peer, name, **more):
    """A room there, as it is told."""
    shown = {"room_id": f"!{name}:{peer.name}", "name": name, "num_joined_members": 3, "join_rule": "public"}
    return {**shown, "world_readable": False, "guest_can_join": False, **more}


def child(peer, name, **content):
    event = {"type": "m.space.child", "state_key": f"!{name}:{peer.name}", "sender": f"@bob:{peer.name}"}
    return {**event, "origin_server_ts": 5, "content": {"via": [peer.name], "order": name, **content}}


def tell(peer, shown, children=(), inaccessible=(), version="v1"):
    """Lets the peer tell of a room. Returns the path."""
    target = path(version + "/hierarchy/{}", shown["room_id"])
    shown = {"children_state": [], **shown}
    answer = {"room": shown, "children": list(children), "inaccessible_children": list(inaccessible)}
    peer.answers[target] = lambda _: (200, answer)
    return target


def make_space(alice, *children):
    """A space of Alice's with the rooms of others."""
    space = alice.create_room(preset="public_chat", creation_content={"type": "m.space"}, name="here")
    for order, (room_id, *via) in enumerate(children):
        alice.set_state(space, "m.space.child", {"via": list(via), "order": f"{order}"}, key=room_id)
    return space


def names(client, space, **query):
    return [shown.get("name") for shown in client.get(HIERARCHY, space, query=query)["rooms"]]


def test_rooms_there_are_asked_for_and_remembered(alice, peer):
    outer = room(peer, "outer", room_type="m.space")
    outer["children_state"] = [child(peer, name) for name in ("a", "b", "c", "d", "e")]
    inner = room(peer, "b", room_type="m.space")
    told = [room(peer, "a"), inner, room(peer, "e", join_rule="invite")]
    asked = [tell(peer, outer, told, [f"!c:{peer.name}"])]
    asked.append(tell(peer, {**inner, "children_state": [child(peer, "z"), child(peer, "a")]}, [room(peer, "z")]))
    asked.append(tell(peer, room(peer, "d")))
    space = make_space(alice, (outer["room_id"], peer.name))
    for limit in (50, 2):
        found, query = [], {"limit": limit}
        while query:
            page = alice.get(HIERARCHY, space, query=query)
            found += [shown["name"] for shown in page["rooms"]]
            query = page.get("next_batch") and {"limit": limit, "from": page["next_batch"]}
        assert found == ["here", "outer", "a", "b", "z", "d"]
    # Each room once, though it was walked through twice; of those that were told beside the space, the spaces alone; and
    # not what nobody of this server can come into.
    assert sorted(request.target.split("?")[0] for request in peer.requests if "/hierarchy/" in request.target) == sorted(asked)


def test_rooms_there_are_shown_to_those_who_may_see_them(alice, bob, peer):
    secret = room(peer, "secret", join_rule="restricted")
    space = make_space(alice, (secret["room_id"], peer.name), (f"!private:{peer.name}", peer.name))
    tell(peer, {**secret, "allowed_room_ids": [space]})
    tell(peer, room(peer, "private", join_rule="invite"))
    assert names(alice, space) == ["here", "secret"]
    assert names(bob, space) == ["here"]


def test_a_space_there_can_be_looked_at_from_outside(alice, peer):
    outer = room(peer, "outer", room_type="m.space", children_state=[child(peer, "a")])
    tell(peer, outer, [room(peer, "a")])
    assert names(alice, outer["room_id"]) == ["outer", "a"]
    tell(peer, room(peer, "private", join_rule="invite"))
    alice.get(HIERARCHY, f"!private:{peer.name}", status=403, errcode="M_FORBIDDEN")


def test_a_refusal_is_not_remembered_for_long(alice, peer):
    """Who has joined a room, in order to be shown another, looks again."""
    secret = room(peer, "secret")
    refusal = {"errcode": "M_NOT_FOUND", "error": "There is nothing for you"}
    peer.answers[path("v1/hierarchy/{}", secret["room_id"])] = lambda _: (404, refusal)
    space = make_space(alice, (secret["room_id"], peer.name))
    assert names(alice, space) == ["here"]
    tell(peer, secret)
    until(lambda: names(alice, space) == ["here", "secret"], REFUSAL_SECONDS_MAX)


def test_a_server_of_before_is_asked_as_it_knows_it(alice, peer):
    target = tell(peer, room(peer, "old"), version="unstable/org.matrix.msc2946")
    space = make_space(alice, (f"!old:{peer.name}", peer.name))
    assert names(alice, space) == ["here", "old"]
    assert len(peer.asked(target)) == 1


def test_only_what_is_suggested(alice, peer):
    outer = room(peer, "outer", room_type="m.space")
    outer["children_state"] = [child(peer, "a"), child(peer, "b", suggested=True)]
    target = tell(peer, outer, [room(peer, "a"), room(peer, "b")])
    assert names(alice, outer["room_id"], suggested_only="true") == ["outer", "b"]
    assert peer.asked(target)[0].target.endswith("?suggested_only=true")


@pytest.mark.parametrize("kind", ["silent", "gone", "failing", "denied"])
def test_servers_that_are_of_no_help_stall_nobody(alice, network, peer, kind):
    troubled = network.peer("someone.denied.test" if kind == "denied" else None)
    rooms = [f"!{unique('room')}:{troubled.name}" for _ in range(25)]
    if kind == "silent":
        troubled.trickle = True
    elif kind == "gone":
        troubled.close()
        network.peers.remove(troubled)
    elif kind == "failing":
        for room_id in [*rooms, f"!both:{peer.name}"]:
            troubled.answers[path("v1/hierarchy/{}", room_id)] = lambda _: (500, {"errcode": "M_UNKNOWN", "error": "no"})
    target = tell(peer, room(peer, "fine"))
    both = room(peer, "both")
    tell(peer, both)
    space = make_space(alice, (both["room_id"], troubled.name, peer.name), *((room_id, troubled.name) for room_id in rooms), (f"!fine:{peer.name}", peer.name))
    begun = time.monotonic()
    assert names(alice, space) == ["here", "both", "fine"]
    assert time.monotonic() - begun < SECONDS_MAX
    assert len(peer.asked(target)) == 1
    # Who was of no help is left alone for a while.
    assert len([request for request in troubled.requests if "/hierarchy/" in request.target]) <= 10


def test_what_a_server_tells_of_rooms_here_counts_for_nothing(alice, bob, peer):
    hidden = alice.create_room(preset="private_chat", name="hidden")
    outer = room(peer, "outer", room_type="m.space", children_state=[{**child(peer, "x"), "state_key": hidden}])
    tell(peer, outer, [{**room(peer, "x"), "room_id": hidden, "name": "forged"}])
    assert names(bob, outer["room_id"]) == ["outer"]
    assert names(alice, outer["room_id"]) == ["outer", "hidden"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{",
        b'{"room": {}}',
        b'{"room": {"room_id": "!other:a.test", "join_rule": "public"}, "children": [], "inaccessible_children": []}',
        b'{"room": 5, "children": 5}',
        b" " * (5 * 1024 * 1024),
    ],
)
def test_answers_that_make_no_sense(alice, peer, answer):
    space = make_space(alice, (f"!odd:{peer.name}", peer.name), (f"!fine:{peer.name}", peer.name))
    peer.answers[path("v1/hierarchy/{}", f"!odd:{peer.name}")] = lambda _: (200, answer)
    tell(peer, room(peer, "fine"))
    assert names(alice, space) == ["here", "fine"]


def test_we_tell_nobody_of_rooms_that_we_are_not_in(server, alice, resident):
    """Who has left a room knows it as it was then."""
    space = alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
    resident.join(server, space)
    assert resident.send(server, "GET", path("v1/hierarchy/{}", space))[0] == 200
    alice.leave(space)
    status, answer = resident.send(server, "GET", path("v1/hierarchy/{}", space))
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")
