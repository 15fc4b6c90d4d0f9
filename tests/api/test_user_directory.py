"""Search for users (spec: User Directory)."""

import pytest

from harness.client import unique

PATH = "user_directory/search"


def found(client, term, **more):
    return [user["user_id"] for user in client.post(PATH, json={"search_term": term, **more})["results"]]


def until_found(client, term):
    """The directory may follow the rooms a little later, so the search is repeated with each new sync."""
    return client.sync_until(lambda _: found(client, term))


def test_those_who_share_a_room_are_found_by_id_and_name(alice, bob, room):
    name = unique("Carrot") + " Lover"
    bob.put("profile/{userId}/{keyName}", bob.user_id, "displayname", json={"displayname": name})
    assert until_found(alice, name.split(" ")[0].lower()) == [bob.user_id]
    assert bob.user_id in found(alice, bob.user_id[1:].split(":")[0])
    result = alice.post(PATH, json={"search_term": name})["results"][0]
    assert result["display_name"] == name


def test_members_of_public_rooms_are_found(alice, carol):
    carol.create_room(preset="public_chat", visibility="public")
    assert until_found(alice, carol.user_id[1:].split(":")[0]) == [carol.user_id]


def test_the_limit(nobody, alice):
    word = unique("crowd").replace("-", "")
    room = alice.create_room(preset="public_chat")
    for number in range(4):
        user = nobody.register("member")
        name = {"displayname": f"{word} {number}"}
        user.put("profile/{userId}/{keyName}", user.user_id, "displayname", json=name)
        user.join(room)
    alice.sync_until(lambda _: len(found(alice, word)) == 4)
    answer = alice.post(PATH, json={"search_term": word, "limit": 2})
    assert len(answer["results"]) == 2
    assert answer["limited"] is True


def test_nobody(alice):
    assert alice.post(PATH, json={"search_term": unique("nothing-like-it")}) == {"results": [], "limited": False}


@pytest.mark.ours("Synapse fails inside on values of another type")
@pytest.mark.parametrize("body", [{}, {"search_term": 7}, {"search_term": "x", "limit": "many"}])
def test_malformed(alice, body):
    alice.post(PATH, json=body, status=400)
