"""Rooms of spaces (client-server API, "Spaces"): which are shown, in which order, in which pages."""

import itertools

import pytest

HIERARCHY = "/_matrix/client/v1/rooms/{roomId}/hierarchy"


def hierarchy(client, space, **query):
    return client.get(HIERARCHY, space, query=query)


def ids(answer):
    return [room["room_id"] for room in answer["rooms"]]


def add(owner, space, room, **content):
    owner.set_state(space, "m.space.child", {"via": [owner.server_name], **content}, key=room)


def make_space(owner, **more):
    return owner.create_room(preset="public_chat", creation_content={"type": "m.space"}, **more)


@pytest.fixture
def space(alice):
    """A space of Alice's with rooms a, b and c, of which b is a space with the room in."""
    space, inner = make_space(alice, name="Warrens"), make_space(alice, name="b")
    rooms = {name: alice.create_room(preset="public_chat", name=name, topic=f"the {name}") for name in ("a", "c", "in")}
    rooms |= {"space": space, "b": inner}
    for name in "cba":
        add(alice, space, rooms[name], order=name, suggested=name != "b")
    add(alice, inner, rooms["in"])
    return rooms


def names_of(space, answer):
    by_id = {room: name for name, room in space.items()}
    return [by_id[room] for room in ids(answer)]


def test_what_a_space_shows(alice, bob, space):
    answer = hierarchy(bob, space["space"])
    assert names_of(space, answer) == ["space", "a", "b", "in", "c"]
    assert "next_batch" not in answer
    root, first = answer["rooms"][:2]
    assert (root["room_type"], root["name"], root["num_joined_members"]) == ("m.space", "Warrens", 1)
    assert (first["name"], first["topic"], first["join_rule"], first["children_state"]) == ("a", "the a", "public", [])
    children = root["children_state"]
    assert [event["content"]["order"] for event in children] == ["a", "b", "c"]
    assert {event["type"] for event in children} == {"m.space.child"} and {event["sender"] for event in children} == {alice.user_id}
    assert names_of(space, hierarchy(bob, space["b"])) == ["b", "in"]
    assert names_of(space, hierarchy(bob, space["a"])) == ["a"]


def test_how_deep_and_how_much(bob, space):
    for query, expected in (
        ({"max_depth": 0}, ["space"]),
        ({"max_depth": 1}, ["space", "a", "b", "c"]),
        ({"max_depth": 10**9}, ["space", "a", "b", "in", "c"]),
        ({"suggested_only": "true"}, ["space", "a", "c"]),
        ({"limit": 10**9}, ["space", "a", "b", "in", "c"]),
    ):
        answer = hierarchy(bob, space["space"], **query)
        assert names_of(space, answer) == expected, query


@pytest.mark.ours("Synapse serves the name of before no more")
def test_the_name_of_before(bob, space):
    path = "/_matrix/client/unstable/org.matrix.msc2946/rooms/{roomId}/hierarchy"
    assert names_of(space, bob.get(path, space["space"])) == ["space", "a", "b", "in", "c"]


def test_a_loop_ends(alice, bob, space):
    add(alice, space["b"], space["space"])
    add(alice, space["b"], space["b"])
    assert names_of(space, hierarchy(bob, space["space"])) == ["space", "a", "b", "in", "c"]


def test_pages(alice, bob, space):
    found, query = [], {"limit": 2}
    for number in itertools.count():
        page = hierarchy(bob, space["space"], **query)
        found.append(names_of(space, page))
        if number == 0:
            # What is added behind somebody's back is for the next look.
            add(alice, space["space"], alice.create_room(preset="public_chat"), order="a1")
        if "next_batch" not in page:
            break
        # Another limit is no other request, and the same page can be asked for again.
        query = {"limit": 2, "from": page["next_batch"]}
        again = hierarchy(bob, space["space"], **{**query, "limit": 1})
        assert names_of(space, again) == names_of(space, hierarchy(bob, space["space"], **query))[:1]
    assert found == [["space", "a"], ["b", "in"], ["c"]]


def test_a_token_is_for_its_request(alice, bob, space):
    query = {"limit": 1, "max_depth": 2, "suggested_only": "true"}
    token = hierarchy(bob, space["space"], **query)["next_batch"]
    right = {**query, "from": token}
    assert names_of(space, hierarchy(bob, space["space"], **right)) == ["a"]
    wrong = [
        (bob, space["space"], {**right, "max_depth": 1}),
        (bob, space["space"], {"from": token, "suggested_only": "true"}),
        (bob, space["space"], {**right, "suggested_only": "false"}),
        (bob, space["space"], {**right, "from": "nothing"}),
        (bob, space["b"], right),
        (alice, space["space"], right),
    ]
    for client, room, query in wrong:
        client.get(HIERARCHY, room, query=query, status=400, errcode="M_INVALID_PARAM")


LENIENT = pytest.mark.ours("Synapse takes a limit of zero, and a token that is empty for none")


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=few",
        "max_depth=-1",
        "max_depth=x",
        "suggested_only=maybe",
        pytest.param("limit=0", marks=LENIENT),
        pytest.param("from=", marks=LENIENT),
    ],
)
def test_parameters_that_make_no_sense(alice, query):
    space = make_space(alice)
    name, value = query.split("=")
    alice.get(HIERARCHY, space, query={name: value}, status=400, errcode="M_INVALID_PARAM")


def test_rooms_are_shown_to_those_who_may_see_them(alice, bob, carol):
    space = make_space(alice)
    condition = {"type": "m.room_membership", "room_id": space}
    rules = {
        "for members": {"join_rule": "restricted", "allow": [condition]},
        "knock": {"join_rule": "knock"},
        "closed": {"join_rule": "invite"},
        "invited": {"join_rule": "invite"},
        "open": {"join_rule": "public"},
    }
    rooms = {}
    for name, rule in rules.items():
        state = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
        rooms[name] = alice.create_room(preset="private_chat", initial_state=state, name=name)
        add(alice, space, rooms[name], order=name)
    alice.invite(rooms["invited"], bob)
    bob.join(space)
    seen = [room["name"] for room in hierarchy(bob, space)["rooms"][1:]]
    assert seen == ["for members", "invited", "knock", "open"]
    # Who is not in the space is shown no room of its members.
    assert [room["name"] for room in hierarchy(carol, space)["rooms"][1:]] == ["knock", "open"]
    for_members = next(room for room in hierarchy(bob, space)["rooms"] if room.get("name") == "for members")
    assert (for_members["join_rule"], for_members["allowed_room_ids"]) == ("restricted", [space])


def test_the_room_says_whether_it_is_encrypted(alice):
    encryption = {"algorithm": "m.megolm.v1.aes-sha2"}
    state = [{"type": "m.room.encryption", "state_key": "", "content": encryption}]
    room = alice.create_room(initial_state=state, room_version="10")
    (shown,) = hierarchy(alice, room)["rooms"]
    assert (shown["encryption"], shown["room_version"]) == (encryption["algorithm"], "10")


@pytest.mark.parametrize("room_id", ["!nowhere:localhost", "!nowhere:nobody.invalid", "nothing", "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
def test_rooms_that_are_not_there(alice, room_id):
    alice.get(HIERARCHY, room_id, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse shows the banned what is open to others")
def test_who_is_banned_is_shown_nothing(alice, bob, space):
    alice.post("rooms/{roomId}/ban", space["c"], json={"user_id": bob.user_id})
    assert names_of(space, hierarchy(bob, space["space"])) == ["space", "a", "b", "in"]
    alice.post("rooms/{roomId}/ban", space["space"], json={"user_id": bob.user_id})
    bob.get(HIERARCHY, space["space"], status=403, errcode="M_FORBIDDEN")


def test_rooms_that_are_not_for_the_user(alice, bob):
    private = alice.create_room(preset="private_chat", creation_content={"type": "m.space"})
    bob.get(HIERARCHY, private, status=403, errcode="M_FORBIDDEN")
