"""Transactions that come again: one origin's id stands for one transaction for ever (server-server API, "Transactions")."""

import pytest

from harness.client import Client, bodies, unique
from harness.events import id_of
from harness.participant import Participant
from harness.senders import room_messages
from harness.server import sound


@pytest.fixture
def warren(network, tmp_path):
    """A server without an administrator, that a test starts anew."""
    with sound(network.server(tmp_path)) as server:
        yield server


def whisper(peer, alice, text):
    """A message to all of Alice's devices."""
    content = {
        "sender": peer.user(),
        "type": "m.test",
        "message_id": unique("message"),
        "messages": {alice.user_id: {"*": {"text": text}}},
    }
    return {"edu_type": "m.direct_to_device", "content": content}


def heard_until(alice, text):
    """What is whispered to Alice, up to a text."""
    heard = []

    def hears(answer):
        heard.extend(event["content"]["text"] for event in answer.get("to_device", {}).get("events", []))
        return text in heard

    alice.sync_until(hears)
    return heard


@pytest.mark.parametrize("is_restarted", [False, True])
def test_an_id_stands_for_one_transaction_of_its_origin(warren, network, resident, is_restarted):
    """Whatever else comes under it is answered as the first, and not looked at; another server may have the same id."""
    alice, other = Client(warren.base_url).register("alice"), network.peer(kind=Participant)
    room_id = alice.create_room(preset="public_chat", room_version="11")
    copy, others = resident.join(warren, room_id), other.join(warren, room_id)
    transaction_id, first = unique("txn"), resident.message(copy, "first")
    forged = {**resident.message(copy, "forged"), "signatures": first["signatures"]}
    answer = resident.transact(
        warren, [first, forged], [whisper(resident, alice, "first")], transaction_id=transaction_id
    )
    assert answer[id_of(first)] == {} and answer[id_of(forged)]["error"]
    if is_restarted:
        warren.restart()
        alice.http.close()
    late = resident.message(copy, "late")
    told = [whisper(resident, alice, "late")]
    for content in (([late], told), ([], told), ([first, forged, late], []), ([], [])):
        assert resident.transact(warren, *content, transaction_id=transaction_id) == answer
    theirs = other.message(others, "theirs")
    whispered = [whisper(other, alice, "theirs")]
    assert other.transact(warren, [theirs], whispered, transaction_id=transaction_id) == {id_of(theirs): {}}
    assert heard_until(alice, "theirs") == ["first", "theirs"]
    assert bodies(room_messages(alice, room_id)) == ["first", "theirs"]
    # There is nothing wrong with it but the id.
    assert resident.transact(warren, [late], told) == {id_of(late): {}}
    assert heard_until(alice, "late") == ["late"]
    assert bodies(room_messages(alice, room_id)) == ["first", "theirs", "late"]
