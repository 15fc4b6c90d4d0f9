"""Transactions that a server, or a proxy before it, refuses for what is in them: nothing else is lost by that."""

import json

import pytest

from harness.deliveries import ADMIN, asked, room_with, send_to_device, until_failing
from harness.participant import Participant

# What proxies answer who know nothing of Matrix.
TOO_LARGE = (413, {})
WRONG_PORT = (400, {})


class Choosy(Participant):
    """Refuses transactions by what is in them."""

    def refusal(self, _body):
        return None

    def answer_send(self, values, query, body):
        refusal = None if self.is_failing else self.refusal(body)
        if refusal:
            with self.came:
                self.tries.append((values[0], body))
                self.came.notify_all()
        return refusal or super().answer_send(values, query, body)


@pytest.fixture
def choosy(network):
    return network.peer(kind=Choosy)


def let_pile_up(alice, room_id, peer, *sayings):
    """Says all that while the first is under way in vain, so that the rest comes in one transaction."""
    peer.is_failing = True
    for saying in sayings:
        saying()
    peer.until(lambda: peer.tries)
    peer.is_failing = False


def numbers(peer):
    return [content["n"] for edu in peer.edus("m.direct_to_device") for content in edu["messages"][peer.user()].values()]


def test_what_is_too_large_for_a_proxy_comes_in_parts(warren, alice, admin, choosy):
    room_id, user_id = room_with(alice, warren, choosy)
    choosy.refusal = lambda body: TOO_LARGE if len(json.dumps(body)) > 4000 else None
    texts = [f"{number} {'x' * 500}" for number in range(12)]
    says = [lambda text=text: alice.send(room_id, text) for text in texts]
    tells = [lambda n=n: send_to_device(alice, {user_id: {"BOB": {"n": n, "text": "x" * 500}}}) for n in range(8)]
    let_pile_up(alice, room_id, choosy, *says, *tells)
    choosy.until(lambda: len(choosy.bodies) >= len(texts) and len(numbers(choosy)) >= 8)
    assert choosy.bodies == texts and numbers(choosy) == list(range(8))
    taken = [id for id, _ in choosy.transactions]
    assert len(taken) == len(set(taken)) and max(map(len, taken)) < 100
    assert any(len(json.dumps(body)) > 4000 for _, body in choosy.tries), "the whole was tried"
    alice.send(room_id, "after")
    choosy.until(lambda: "after" in choosy.bodies)
    assert asked(admin, f"{ADMIN}/{choosy.name}")["failures"] == 0


def test_one_part_that_a_server_refuses_costs_no_other(warren, alice, choosy):
    room_id, user_id = room_with(alice, warren, choosy)

    def refusal(body):
        said = [event["content"].get("body") for event in body["pdus"]]
        return (400, {"errcode": "M_BAD_JSON", "error": "I do not like one of these"}) if "odd" in said else None

    choosy.refusal = refusal
    says = [lambda text=text: alice.send(room_id, text) for text in ("1", "2", "odd", "3")]
    let_pile_up(alice, room_id, choosy, *says, lambda: send_to_device(alice, {user_id: {"BOB": {"n": 1}}}))
    choosy.until(lambda: len(choosy.bodies) >= 3 and numbers(choosy))
    alice.send(room_id, "4")
    choosy.until(lambda: "4" in choosy.bodies)
    assert choosy.bodies == ["1", "2", "3", "4"] and numbers(choosy) == [1]


def test_nothing_is_given_up_for_a_proxy_that_is_set_up_wrongly(warren, alice, admin, choosy):
    """It refuses everything, of any size, and says nothing that a homeserver would."""
    room_id, user_id = room_with(alice, warren, choosy)
    choosy.refusal = lambda _: WRONG_PORT
    alice.send(room_id, "1")
    send_to_device(alice, {user_id: {"BOB": {"n": 1}}})
    until_failing(admin, choosy)
    choosy.refusal = lambda _: None
    asked(admin, f"{ADMIN}/{choosy.name}/reset_connection", "POST")
    choosy.until(lambda: choosy.bodies and numbers(choosy))
    assert choosy.bodies == ["1"] and numbers(choosy) == [1]
