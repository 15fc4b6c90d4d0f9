"""Room aliases and the published room directory (spec: Room aliases, Published room directory)."""

import pytest

from harness.client import unique

PATH = "directory/room/{roomAlias}"


def new_alias(client):
    return f"#{unique('alias')}:{client.server_name}"


def test_an_alias_from_making_to_removing(alice, bob, nobody, room):
    alias = new_alias(alice)
    assert alice.put(PATH, alias, json={"room_id": room}) == {}
    answer = nobody.get(PATH, alias)
    assert answer["room_id"] == room
    assert alice.server_name in answer["servers"]
    assert alice.get("rooms/{roomId}/aliases", room) == {"aliases": [alias]}
    alice.delete(PATH, alias)
    nobody.get(PATH, alias, status=404, errcode="M_NOT_FOUND")


def test_a_taken_alias(alice, bob, room):
    alias = new_alias(alice)
    alice.put(PATH, alias, json={"room_id": room})
    bob.put(PATH, alias, json={"room_id": room}, status=409)


def test_removing_is_for_its_maker_and_the_powerful(alice, bob, carol, room):
    alias = new_alias(alice)
    alice.put(PATH, alias, json={"room_id": room})
    for client in (bob, carol):
        client.delete(PATH, alias, status=403, errcode="M_FORBIDDEN")
    theirs = new_alias(bob)
    bob.put(PATH, theirs, json={"room_id": room})
    alice.delete(PATH, theirs)


def test_removing_an_unknown_alias(alice):
    alice.delete(PATH, new_alias(alice), status=404, errcode="M_NOT_FOUND")


@pytest.mark.parametrize("alias", ["burrow", "#burrow"])
def test_malformed_aliases(alice, room, alias):
    alice.put(PATH, alias, json={"room_id": room}, status=400, errcode="M_INVALID_PARAM")
    alice.get(PATH, alias, status=400, errcode="M_INVALID_PARAM")


@pytest.mark.ours("Synapse asks servers that there cannot be")
@pytest.mark.parametrize("alias", ["burrow:elsewhere.test", "#burrow:host:99999", "#burrow:host/path", "#burrow:a_b"])
def test_aliases_of_servers_that_there_cannot_be(alice, alias):
    alice.get(PATH, alias, status=400, errcode="M_INVALID_PARAM")


def test_an_alias_of_another_server_is_not_ours_to_give(alice, room):
    alice.put(PATH, "#burrow:elsewhere.example", json={"room_id": room}, status=(400, 403))


def test_joining_by_alias(alice, bob):
    name = unique("open")
    room = alice.create_room(preset="public_chat", room_alias_name=name)
    assert bob.join(f"#{name}:{alice.server_name}") == {"room_id": room}


def test_aliases_are_for_members(alice, carol, room):
    carol.get("rooms/{roomId}/aliases", room, status=403, errcode="M_FORBIDDEN")


def test_removing_the_canonical_alias_updates_the_room(alice):
    name = unique("canonical")
    room = alice.create_room(room_alias_name=name)
    assert alice.state(room, "m.room.canonical_alias")["alias"] == f"#{name}:{alice.server_name}"
    alice.delete(PATH, f"#{name}:{alice.server_name}")
    assert "alias" not in alice.state(room, "m.room.canonical_alias")


def published(client, **body):
    return {room["room_id"]: room for room in client.post("publicRooms", json={"limit": 500, **body})["chunk"]}


def test_the_public_directory(alice, bob):
    name = unique("Carrots")
    room = alice.create_room(preset="public_chat", visibility="public", name=name, topic="About carrots")
    bob.join(room)
    entry = published(bob, filter={"generic_search_term": name.upper()})[room]
    assert (entry["name"], entry["topic"], entry["num_joined_members"]) == (name, "About carrots", 2)
    assert (entry["world_readable"], entry["guest_can_join"], entry["join_rule"]) == (False, False, "public")
    assert room in {r["room_id"] for r in bob.get("publicRooms", query={"limit": 500})["chunk"]}


def test_no_room_passes_for_another(alice, bob):
    name = unique("real")
    real = alice.create_room(preset="public_chat", visibility="public", room_alias_name=name)
    alias = f"#{name}:{alice.server_name}"
    mine = bob.create_room(preset="public_chat", visibility="public", name=name)
    for content in ({"alias": alias}, {"alt_aliases": [alias]}, {"alias": new_alias(bob)}):
        bob.set_state(mine, "m.room.canonical_alias", content, status=400, errcode="M_BAD_ALIAS")
        initial = {"preset": "public_chat", "visibility": "public", "name": name}
        initial["initial_state"] = [{"type": "m.room.canonical_alias", "state_key": "", "content": content}]
        bob.post("createRoom", json=initial, status=400, errcode="M_BAD_ALIAS")
    initial["initial_state"][0]["content"] = {"alias": 5}
    bob.post("createRoom", json=initial, status=400)
    shown = published(bob, filter={"generic_search_term": name})
    assert {room: entry.get("canonical_alias") for room, entry in shown.items()} == {real: alias, mine: None}


@pytest.mark.parametrize("body", [{"since": ""}, {"since": None}, {"filter": None}, {"filter": {"generic_search_term": None}}])
def test_a_search_that_leaves_things_open(alice, body):
    room = alice.create_room(preset="public_chat", visibility="public")
    assert room in published(alice, **body)
    assert room in {shown["room_id"] for shown in alice.get("publicRooms", query={"limit": 500, "since": ""})["chunk"]}


def test_search_leaves_others_out(alice):
    alice.create_room(preset="public_chat", visibility="public", name="Something else")
    assert published(alice, filter={"generic_search_term": unique("nothing-like-it")}) == {}


def test_search_by_room_type(alice):
    name = unique("typed")
    plain = alice.create_room(preset="public_chat", visibility="public", name=name)
    content = {"type": "m.space"}
    space = alice.create_room(preset="public_chat", visibility="public", name=name, creation_content=content)
    search = {"generic_search_term": name}
    assert set(published(alice, filter={**search, "room_types": ["m.space"]})) == {space}
    assert set(published(alice, filter={**search, "room_types": [None]})) == {plain}
    assert set(published(alice, filter={**search, "room_types": [None, "m.space"]})) == {plain, space}


def test_the_directory_in_pages(alice):
    name = unique("paged")
    rooms = {alice.create_room(preset="public_chat", visibility="public", name=name) for _ in range(3)}
    seen, body = [], {"limit": 2, "filter": {"generic_search_term": name}}
    while True:
        page = alice.post("publicRooms", json=body)
        seen += [room["room_id"] for room in page["chunk"]]
        if "next_batch" not in page:
            break
        body["since"] = page["next_batch"]
    assert sorted(seen) == sorted(rooms)


def test_no_limit_is_all_that_a_page_has(alice):
    name = unique("unlimited")
    rooms = {alice.create_room(preset="public_chat", visibility="public", name=name) for _ in range(3)}
    assert set(published(alice, limit=0, filter={"generic_search_term": name})) == rooms
    assert len(alice.get("publicRooms", query={"limit": 0})["chunk"]) >= len(rooms)


def test_no_server_is_this_one(alice):
    room = alice.create_room(preset="public_chat", visibility="public", name=unique("here"))
    got = alice.get("publicRooms", query={"server": "", "limit": 500})
    found = alice.post("publicRooms", query={"server": ""}, json={"limit": 500})
    for page in (got, found):
        assert room in {shown["room_id"] for shown in page["chunk"]}


def test_rooms_of_a_network_are_not_the_main_list(alice):
    room = alice.create_room(preset="public_chat", visibility="public", name=unique("main"))
    assert published(alice, third_party_instance_id="irc|burrow") == {}
    assert room in published(alice, include_all_networks=True)
    assert room in published(alice, include_all_networks=None, third_party_instance_id=None)
    both = {"include_all_networks": True, "third_party_instance_id": "irc|burrow"}
    alice.post("publicRooms", json=both, status=400)


def test_visibility_can_be_changed_by_the_powerful(alice, bob, nobody):
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    path = "directory/list/room/{roomId}"
    assert nobody.get(path, room) == {"visibility": "private"}
    bob.put(path, room, json={"visibility": "public"}, status=403, errcode="M_FORBIDDEN")
    alice.put(path, room, json={"visibility": "public"})
    assert nobody.get(path, room) == {"visibility": "public"}
    assert room in published(bob)
    alice.put(path, room, json={"visibility": "private"})
    assert room not in published(bob)


def test_visibility_of_an_unknown_room(alice):
    alice.get("directory/list/room/{roomId}", f"!no:{alice.server_name}", status=404, errcode="M_NOT_FOUND")


@pytest.mark.ours("Synapse fails inside on values of another type")
def test_malformed_directory_requests(alice):
    for body in ({"limit": "many"}, {"filter": 7}, {"since": 7}):
        alice.post("publicRooms", json=body, status=400)
