"""Whatever other servers answer or send, this one signs nothing but what its users asked for.

The class of fault: a server signs an attacker's event, by way of an invite, or of a template for a join, leave or knock.
"""

import json
import random

import pytest

from harness.events import id_of, signed_by
from harness.participant import Participant, path
from harness.peer import Key, signed
from harness.rooms import state, state_ids, via

# As many random templates and invites as take some seconds.
RANDOM = 60
# Servers that invite: one alone may not so often.
INVITERS = 4
# What may stand in a membership event of our user besides the membership.
OWN = {"displayname", "avatar_url", "reason", "membership"}
NAMES = "type room_id sender state_key content depth prev_events auth_events origin_server_ts redacts unsigned".split()


class Liar(Participant):
    """Its templates and answers are changed before they are given."""

    def change(self, answer):
        return answer

    def template(self, room_id, user_id, membership):
        status, answer = super().template(room_id, user_id, membership)
        return status, self.change(answer)


@pytest.fixture
def liar(network):
    return network.peer(kind=Liar)


def assert_asked_for(event, room_id, user_id, membership):
    """It is a change of the user's own membership of that room, and says what the user says."""
    told = {name: event[name] for name in ("type", "room_id", "sender", "state_key")}
    assert told == {"type": "m.room.member", "room_id": room_id, "sender": user_id, "state_key": user_id}, event
    assert event["content"]["membership"] == membership and set(event["content"]) <= OWN, event
    allowed = {*NAMES, "hashes", "signatures"} - {"redacts", "unsigned"}
    assert set(event) <= allowed, event


def values(server, liar, room_id, user):
    """Values that a liar would like to see signed."""
    return [
        None, 5, -1, 2**60, "", [], {}, True, "m.room.power_levels", "m.room.member", "m.room.create", room_id,
        user.user_id, liar.user(), f"@admin:{server.name}", "$nothing", ["$nothing"], [["$nothing", {}]], ["$a"] * 30,
        {"membership": "join", "join_authorised_via_users_server": f"@admin:{server.name}"},
        {"membership": "leave"}, {"membership": "ban"}, {"membership": "invite"}, {"users": {liar.user(): 100}},
        {"membership": "join", "displayname": "a liar's"}, {"membership": ["join"]},
    ]


def lies(server, liar, room_id, user):
    """Changes of a template, each by its name: every name with every value, and some at random."""
    choices = values(server, liar, room_id, user)
    for name in NAMES:
        for value in choices:
            yield {name: value}
    yield from random_lies(choices)


def random_lies(choices):
    dice = random.Random(11)
    for _ in range(RANDOM):
        yield {dice.choice(NAMES): dice.choice(choices) for _ in range(dice.randint(2, 4))}


def ask_for(user, membership, room_id, liar):
    """Asks for a membership, whatever comes of it."""
    action = {"join": "join", "knock": "knock", "leave": f"rooms/{room_id}/leave"}[membership]
    target = f"/_matrix/client/v3/{action}" + ("" if membership == "leave" else f"/{room_id}")
    response = user.send_raw("POST", target, json={}, params=via(liar))
    assert response.status_code in (200, 400, 403, 404, 413, 502), response.text
    return response


@pytest.mark.parametrize("membership", ["join", "knock"])
def test_no_template_makes_us_sign_anything_else(server, liar, alice, membership):
    """Property: of whatever template, what is signed is the change that the user asked for, or nothing."""
    room_id = liar.create("knock" if membership == "knock" else "public").room_id
    taken = f"send_{membership}"
    setattr(liar, f"answer_{taken}", lambda *_: (403, {"errcode": "M_FORBIDDEN", "error": "only looking"}))
    count = 0
    # What is true of a join need not be gone through for a knock once more.
    every = lies(server, liar, room_id, alice)
    for lie in every if membership == "join" else random_lies(values(server, liar, room_id, alice)):
        liar.change = lambda answer, lie=lie: {**answer, "event": {**answer["event"], **lie}}
        ask_for(alice, membership, room_id, liar)
        count += 1
    for whole in (None, 5, [], {}, {"event": []}, {"room_version": "99", "event": {}}, {"room_version": 5}):
        liar.change = lambda _, whole=whole: whole
        ask_for(alice, membership, room_id, liar)
    found = [event for request in liar.requests for event in signed_by(server, body_of(request))]
    # Some lies are harmless, so that something is signed.
    assert 0 < len(found) < count
    for event in found:
        assert_asked_for(event, room_id, alice.user_id, membership)


def body_of(request):
    return json.loads(request.body) if request.body else None


def test_no_template_for_a_leave_makes_us_sign_anything_else(server, liar, alice):
    copy = liar.create("invite")
    for lie in ({}, {"type": "m.room.power_levels"}, {"sender": liar.user()}, {"content": {"membership": "join"}},
                {"state_key": liar.user()}, {"room_id": "!other:x.test"}, {"content": {"membership": "leave", "x": 1}}):
        liar.change = lambda answer, lie=lie: {**answer, "event": {**answer["event"], **lie}}
        assert liar.invite(server, copy, alice.user_id)[0] == 200
        ask_for(alice, "leave", copy.room_id, liar)
    found = [event for request in liar.requests for event in signed_by(server, body_of(request))]
    assert found
    for event in found:
        assert_asked_for(event, copy.room_id, alice.user_id, "leave")


@pytest.mark.parametrize("part", range(INVITERS))
def test_no_invite_makes_us_sign_anything_else(server, hostile, alice, part):
    """Property: what is signed for another server is an invite of a user of ours by one of its own, or nothing."""
    copy = hostile.create("invite")
    good = hostile.event(copy, "m.room.member", {"membership": "invite"}, state_key=alice.user_id)
    answers = [hostile.send_invite(server, copy.room_id, good)]
    assert answers[0][0] == 200, answers
    choices = values(server, hostile, copy.room_id, alice)
    dice = random.Random(12)
    changes = [{name: value} for name in NAMES for value in choices]
    changes += [{dice.choice(NAMES): dice.choice(choices) for _ in range(2)} for _ in range(RANDOM)]
    for change in changes[part::INVITERS]:
        event = {name: value for name, value in good.items() if name not in ("hashes", "signatures")}
        event = {**event, **change}
        try:
            event = hostile.sign(event)
            event_id = id_of(event)
        except (KeyError, TypeError):
            event, event_id = {**event, "hashes": good["hashes"], "signatures": good["signatures"]}, id_of(good)
        answers.append(hostile.send_invite(server, copy.room_id, event, event_id))
    answers.append(hostile.send_invite(server, "!other:x.test", good))
    for status, answer in answers:
        assert status in (200, 400, 403, 404, 413), (status, answer)
        for event in signed_by(server, answer):
            assert (event["type"], event["content"]["membership"]) == ("m.room.member", "invite"), event
            assert event["room_id"] == copy.room_id and event["state_key"] == alice.user_id, event
            assert event["sender"].endswith(f":{hostile.name}"), event


def test_what_comes_back_for_an_invite_of_ours_is_not_taken_for_it(server, hostile, alice, room):
    """Of the answer only the signature counts, and that it is of our event."""
    def answer_invite(_values, _query, body):
        event = {**body["event"], "type": "m.room.power_levels", "state_key": ""}
        return 200, {"event": hostile.sign({**event, "content": {"users": {hostile.user(): 100}}})}

    hostile.answer_invite = answer_invite
    before = state_ids(alice, room)
    body = {"user_id": hostile.user()}
    alice.send_raw("POST", f"/_matrix/client/v3/rooms/{room}/invite", json=body)
    others = [event for event in state(alice, room) if event["event_id"] not in before]
    told = [(event["type"], event["state_key"], event["content"]["membership"]) for event in others]
    assert told in ([], [("m.room.member", hostile.user(), "invite")])


def test_a_join_is_not_vouched_for_unasked(server, hostile, alice):
    """A join to a room for members of another is signed only if its user is such a member."""
    hall = alice.create_room(preset="public_chat", room_version="11")
    content = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": hall}]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    closed = alice.create_room(preset="private_chat", room_version="11", initial_state=[rules])
    user = hostile.user()
    status, _ = hostile.send(server, "GET", path("v1/make_join/{}/{}?ver=11", closed, user))
    assert status == 403
    events = {event["type"]: event for event in alice.get("rooms/{roomId}/state", closed)}
    auth = [events[type]["event_id"] for type in ("m.room.create", "m.room.power_levels", "m.room.join_rules")]
    join = {"membership": "join", "join_authorised_via_users_server": alice.user_id}
    event = {"type": "m.room.member", "room_id": closed, "sender": user, "state_key": user, "content": join}
    event |= {"auth_events": auth, "prev_events": auth[-1:], "depth": 9, "origin_server_ts": 1}
    event = hostile.sign(event)
    status, answer = hostile.send(server, "PUT", path("v2/send_join/{}/{}", closed, id_of(event)), event)
    assert status == 403 and not list(signed_by(server, answer)), answer
    for change in ({"type": "m.room.power_levels"}, {"state_key": ""}, {"content": {**join, "membership": "ban"}}):
        other = hostile.sign({**event, **change, "signatures": {}})
        status, answer = hostile.send(server, "PUT", path("v2/send_join/{}/{}", closed, id_of(other)), other)
        assert status in (400, 403) and not list(signed_by(server, answer)), answer


def test_nobody_is_invited_in_our_users_names(server, hostile, alice, room):
    """An invite by an address needs the proof of the identity server that the room names."""
    closed = alice.create_room(preset="private_chat", room_version="11")
    key = Key("0")
    content = {"display_name": "x", "public_key": key.public, "key_validity_url": "https://identity.test/"}
    alice.set_state(closed, "m.room.third_party_invite", content, key="token")
    target, before = hostile.user(), state_ids(alice, closed)

    def proof(by, **more):
        return {"signed": signed({"mxid": target, "token": "token", **more}, "identity.test", by)}

    for invite in (None, {}, {"signed": None}, {"signed": {}}, proof(Key("0")), proof(key, mxid="@x:y.test"), proof(key, token="t")):
        event = {"type": "m.room.member", "room_id": closed, "sender": alice.user_id, "state_key": target}
        event["content"] = {"membership": "invite", "third_party_invite": invite}
        status, _ = hostile.send(server, "PUT", path("v1/exchange_third_party_invite/{}", closed), event)
        assert status in (400, 403), invite
    assert state_ids(alice, closed) == before
    assert not [request for request in hostile.requests if "/invite/" in request.target]
    # With the proof it is made, and says nothing that was not proven or is not the room's.
    event["content"] = {"membership": "invite", "third_party_invite": {**proof(key), "x": 1}, "y": 2}
    status, answer = hostile.send(server, "PUT", path("v1/exchange_third_party_invite/{}", closed), event)
    assert status == 200, answer
    invite = alice.state(closed, "m.room.member", target)
    assert set(invite["third_party_invite"]) == {"signed", "display_name"} and "y" not in invite, invite


@pytest.mark.parametrize("kept", [True, False], ids=["beside one that holds", "alone"])
def test_only_signatures_that_hold_are_kept_of_who_is_invited(server, liar, alice, kept):
    room_id = alice.create_room(preset="public_chat", room_version="11")
    liar.join(server, room_id)
    dora, answer_invite = liar.user("dora"), liar.answer_invite

    def answer(values, query, body):
        status, answer = answer_invite(values, query, body)
        right = answer["event"]["signatures"][liar.name]
        bogus = {f"{liar.key.id}": "A" * 86} if not kept else {**right, "ed25519:bogus": "A" * 86}
        answer["event"]["signatures"] = {liar.name: bogus}
        return status, answer

    liar.answer_invite = answer
    alice.post("rooms/{roomId}/invite", room_id, json={"user_id": dora}, status=200 if kept else 502)
    invites = [event for event in state(alice, room_id) if event["state_key"] == dora]
    assert len(invites) == kept
    if kept:
        liar.until(lambda: any(event.get("state_key") == dora for event in liar.pdus))
        (invite,) = [event for event in liar.pdus if event.get("state_key") == dora]
        assert list(invite["signatures"][liar.name]) == [liar.key.id]
