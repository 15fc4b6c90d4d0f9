"""Registration, login, logout, tokens, password change and deactivation (spec: Client Authentication, Accounts)."""

import concurrent.futures

import pytest

from harness.client import PASSWORD, Client, timeline, unique


def dummy(**more):
    return {"auth": {"type": "m.login.dummy"}, "password": PASSWORD, **more}


def test_registration_asks_for_a_stage_first(nobody):
    answer = nobody.post("register", json={"username": unique("new"), "password": PASSWORD}, status=401)
    assert {"stages": ["m.login.dummy"]} in answer["flows"]
    assert answer["session"]


def test_registration_in_two_steps(nobody):
    name = unique("stepper")
    body = {"username": name, "password": PASSWORD}
    session = nobody.post("register", json=body, status=401)["session"]
    auth = {"type": "m.login.dummy", "session": session}
    answer = nobody.post("register", json={**body, "auth": auth})
    assert answer["user_id"].startswith(f"@{name}:")
    user = nobody.signed_in(answer)
    assert user.get("account/whoami")["user_id"] == user.user_id


def test_registration_learns_the_flows_with_an_empty_body(nobody):
    # As clients do: `{}` to see the flows, then name and password in the session that came of it.
    session = nobody.post("register", json={}, status=401)["session"]
    name = unique("asker")
    auth = {"type": "m.login.dummy", "session": session}
    body = {"username": name, "password": PASSWORD, "auth": auth}
    assert nobody.post("register", json=body)["user_id"].startswith(f"@{name}:")
    # A session is used up by the registration that it served.
    body["username"] = unique("again")
    nobody.post("register", json=body, status=400, errcode="M_UNKNOWN")


@pytest.mark.ours("Synapse forgets the password, which is to come again")
def test_a_registration_goes_on_with_the_body_that_began_it(nobody):
    # As Element Android does: the parameters once, then `auth` alone.
    name = unique("stepper")
    body = {"username": name, "password": PASSWORD, "initial_device_display_name": "Den"}
    session = nobody.post("register", json=body, status=401)["session"]
    only = {"auth": {"type": "m.login.dummy", "session": session}}
    answer = nobody.post("register", json=only)
    assert answer["user_id"].startswith(f"@{name}:")
    assert nobody.post("register", json=only) == answer
    user = nobody.signed_in(answer)
    assert [device["display_name"] for device in user.get("devices")["devices"]] == ["Den"]
    user.login()
    # In a session of its own there is nothing to go on with.
    session = nobody.post("register", json={}, status=401)["session"]
    only["auth"]["session"] = session
    nobody.post("register", json=only, status=400, errcode="M_MISSING_PARAM")


def test_a_registration_that_lacks_its_password_may_come_with_it(nobody):
    session = nobody.post("register", json={}, status=401)["session"]
    body = {"username": unique("late"), "auth": {"type": "m.login.dummy", "session": session}}
    nobody.post("register", json=body, status=400, errcode="M_MISSING_PARAM")
    answer = nobody.post("register", json={**body, "password": PASSWORD})
    assert answer["user_id"].startswith(f"@{body['username']}:")


@pytest.fixture(params=["with a name", "without a name"])
def registration(request, nobody):
    """The body of a registration, as it is sent in a session of its own."""
    session = nobody.post("register", json={}, status=401)["session"]
    name = {"username": unique("twice")} if request.param == "with a name" else {}
    return {**name, "password": PASSWORD, "auth": {"type": "m.login.dummy", "session": session}}


@pytest.mark.ours("Synapse opens another device")
def test_a_registration_that_is_sent_again_is_answered_as_it_was(nobody, registration):
    """Specification: "servers must return [...] the result of the API call [...] when a client retries a stage"."""
    answer = nobody.post("register", json=registration)
    assert nobody.post("register", json=registration) == answer
    session_alone = {"session": registration["auth"]["session"]}
    assert nobody.post("register", json={**registration, "auth": session_alone}) == answer
    user = nobody.signed_in(answer)
    assert [device["device_id"] for device in user.get("devices")["devices"]] == [user.device_id]


@pytest.mark.ours("Synapse opens another device")
def test_a_session_serves_no_other_registration(nobody, registration):
    answer = nobody.post("register", json=registration)
    # Who knows nothing but the session is told nothing.
    nobody.post("register", json={"auth": registration["auth"]}, status=400, errcode="M_UNKNOWN")
    other = unique("other")
    for change in ({"username": other}, {"password": "another burrow"}, {"device_id": "OTHER"}):
        refused = nobody.post("register", json={**registration, **change}, status=400)
        assert refused["errcode"] in ("M_UNKNOWN", "M_USER_IN_USE")
    assert nobody.get("register/available", query={"username": other}) == {"available": True}
    # Nor does another session give its answer.
    session = nobody.post("register", json={}, status=401)["session"]
    again = {**registration, "auth": {"type": "m.login.dummy", "session": session}}
    if "username" in registration:
        nobody.post("register", json=again, status=400, errcode="M_USER_IN_USE")
    else:
        assert nobody.post("register", json=again)["user_id"] != answer["user_id"]


@pytest.mark.ours("Synapse opens another device")
def test_the_same_registration_many_times_at_once_is_one(nobody, registration):
    clients = [Client(nobody.base_url) for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda client: client.post("register", json=registration), clients))
    assert all(answer == answers[0] for answer in answers)


def test_a_registration_that_is_wrong_is_so_again(nobody):
    session = nobody.post("register", json={}, status=401)["session"]
    body = {"username": unique("bare"), "auth": {"type": "m.login.dummy", "session": session}}
    for _ in range(2):
        nobody.post("register", json=body, status=400, errcode="M_MISSING_PARAM")
    nobody.get("register/available", query={"username": body["username"]})


def test_registration_names_the_device(nobody):
    user = nobody.register(device_id="BURROW", initial_device_display_name="Den")
    assert user.device_id == "BURROW"
    device = user.get("devices/{deviceId}", "BURROW")
    assert device["display_name"] == "Den"


def test_an_empty_device_id_is_none(nobody):
    user = nobody.register(device_id="", inhibit_login=None)
    other = user.login(device_id="", refresh_token=None)
    assert user.device_id and other.device_id and user.device_id != other.device_id


def test_registration_without_login(nobody):
    answer = nobody.post("register", json=dummy(username=unique("quiet"), inhibit_login=True))
    assert "access_token" not in answer
    assert "device_id" not in answer


def test_registration_makes_a_name_where_none_is_given(nobody):
    first = nobody.post("register", json=dummy())["user_id"]
    second = nobody.post("register", json=dummy())["user_id"]
    assert first != second


def test_taken_name(nobody, alice):
    name = alice.user_id[1:].split(":")[0]
    nobody.post("register", json=dummy(username=name), status=400, errcode="M_USER_IN_USE")
    nobody.get("register/available", query={"username": name}, status=400, errcode="M_USER_IN_USE")


def test_free_name(nobody):
    assert nobody.get("register/available", query={"username": unique("free")}) == {"available": True}


@pytest.mark.parametrize("name", ["sp ace", "Ünïcode", "colon:name", "@at"])
def test_invalid_names(nobody, name):
    nobody.post("register", json=dummy(username=name), status=400, errcode="M_INVALID_USERNAME")
    if name.isascii():
        nobody.get("register/available", query={"username": name}, status=400, errcode="M_INVALID_USERNAME")


def test_a_name_over_255_bytes_is_invalid(nobody):
    nobody.post("register", json=dummy(username="a" * 255), status=400, errcode="M_INVALID_USERNAME")


def test_guest(nobody):
    answer = nobody.post("register", query={"kind": "guest"}, json={})
    guest = nobody.signed_in(answer)
    assert guest.get("account/whoami")["is_guest"] is True
    guest.post("createRoom", status=403, errcode="M_GUEST_ACCESS_FORBIDDEN")


def guest_of(nobody):
    return nobody.signed_in(nobody.post("register", query={"kind": "guest"}))


@pytest.mark.ours("Synapse ends the guest's own token")
def test_a_guest_becomes_a_user(nobody, alice):
    guest = guest_of(nobody)
    open_to_guests = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    room = alice.create_room(preset="public_chat", initial_state=[open_to_guests])
    other = guest_of(nobody)
    guest.join(room)
    other.join(room)
    name = guest.user_id[1:].split(":")[0]
    answer = nobody.post("register", json=dummy(username=name, guest_access_token=guest.token))
    user = nobody.signed_in(answer)
    assert (user.user_id, user.device_id != guest.device_id) == (guest.user_id, True)
    for device in (guest, user, user.login()):
        assert device.get("account/whoami").get("is_guest", False) is False
    assert guest.create_room()
    # A room that sends its guests away keeps who is one no more.
    alice.set_state(room, "m.room.guest_access", {"guest_access": "forbidden"})
    assert set(alice.get("rooms/{roomId}/joined_members", room)["joined"]) == {alice.user_id, user.user_id}
    assert other.get("account/whoami")["is_guest"] is True


@pytest.mark.ours("Synapse takes the token for good when no name or a free one comes with it")
def test_a_guest_becomes_nobody_else(nobody, alice):
    guest = guest_of(nobody)
    name = guest.user_id[1:].split(":")[0]
    nobody.post("register", json=dummy(username=name), status=400, errcode="M_USER_IN_USE")
    nobody.post("register", json=dummy(guest_access_token=guest.token), status=400, errcode="M_MISSING_PARAM")
    for token, username in (
        (guest_of(nobody).token, name),
        (alice.token, name),
        (guest.token, alice.user_id[1:].split(":")[0]),
        (alice.token, alice.user_id[1:].split(":")[0]),
        (guest.token, unique("free")),
        ("no such token", name),
    ):
        body = dummy(username=username, guest_access_token=token)
        nobody.post("register", json=body, status=403, errcode="M_FORBIDDEN")
    assert guest.get("account/whoami")["is_guest"] is True


def test_login_flows(nobody):
    flows = nobody.get("login")["flows"]
    assert {"type": "m.login.password"} in flows


def test_login_by_name_and_by_id(alice):
    name = alice.user_id[1:].split(":")[0]
    for user in (alice.user_id, name):
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": PASSWORD,
        }
        answer = Client(alice.base_url).post("login", json=body)
        assert answer["user_id"] == alice.user_id
        assert answer["device_id"] != alice.device_id


def test_login_with_the_deprecated_user_field(nobody, alice):
    body = {"type": "m.login.password", "user": alice.user_id, "password": PASSWORD}
    assert nobody.post("login", json=body)["user_id"] == alice.user_id


@pytest.mark.ours("Synapse keeps the device's older token alive")
def test_login_again_on_a_device_replaces_its_token(alice):
    again = alice.login(device_id=alice.device_id)
    assert again.device_id == alice.device_id
    assert again.token != alice.token
    alice.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    assert len(again.get("devices")["devices"]) == 1


@pytest.mark.parametrize("password", ["wrong", "", PASSWORD + " "])
def test_login_with_a_wrong_password(alice, password):
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": password,
    }
    Client(alice.base_url).post("login", json=body, status=403, errcode="M_FORBIDDEN")


EMAIL = {"medium": "email", "address": "bilbo@shire.example"}


@pytest.mark.parametrize(
    "named",
    [
        EMAIL,
        {"identifier": {"type": "m.id.thirdparty", **EMAIL}},
        {"identifier": {"type": "m.id.phone", "country": "GB", "phone": "1"}},
        pytest.param({"identifier": EMAIL}, marks=pytest.mark.ours("Synapse wants the type")),
    ],
)
def test_login_by_an_unknown_third_party_identifier(nobody, named):
    """Specification: "In the case that the homeserver does not know about the supplied 3PID, the homeserver must respond with
    `403 Forbidden`"."""
    body = {"type": "m.login.password", "password": "x", **named}
    nobody.post("login", json=body, status=403, errcode="M_FORBIDDEN")


@pytest.mark.ours("Synapse does not say which")
@pytest.mark.parametrize("identifier", [5, "alice", {"type": 5, "user": "alice"}, {"type": "m.id.user", "user": []}])
def test_a_login_is_told_which_member_is_wrong(nobody, identifier):
    body = {"type": "m.login.password", "identifier": identifier, "password": "x"}
    answer = nobody.post("login", json=body, status=400, errcode="M_BAD_JSON")
    assert answer["error"].startswith("identifier"), answer


def test_login_of_an_unknown_user_reads_like_a_wrong_password(nobody, alice):
    def refused(user):
        body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": "no"}
        return nobody.post("login", json=body, status=403, errcode="M_FORBIDDEN")["error"]

    assert refused(unique("ghost")) == refused(alice.user_id)


@pytest.mark.parametrize(
    "body",
    [
        {"type": "m.login.unheard.of"},
        {"type": "m.login.password"},
        {"type": "m.login.password", "identifier": {"type": "m.id.burrow"}, "password": "x"},
        {"type": 7},
        {},
    ],
)
def test_malformed_login(nobody, body):
    answer = nobody.post("login", json=body, status=400)
    assert answer["errcode"] in ("M_UNKNOWN", "M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_UNRECOGNIZED")


def test_whoami(alice):
    assert alice.get("account/whoami")["user_id"] == alice.user_id
    assert alice.get("account/whoami")["device_id"] == alice.device_id


def test_logout_ends_this_device_only(alice):
    other = alice.login()
    assert alice.post("logout") == {}
    alice.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    assert [device["device_id"] for device in other.get("devices")["devices"]] == [other.device_id]


def test_logout_everywhere(alice):
    other = alice.login()
    assert alice.post("logout/all") == {}
    for client in (alice, other):
        client.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    assert len(alice.login().get("devices")["devices"]) == 1


def refreshable(alice):
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": PASSWORD,
        "refresh_token": True,
    }
    return alice.post("login", json=body)


def test_refresh(nobody, alice):
    first = refreshable(alice)
    assert first["expires_in_ms"] > 0
    second = nobody.post("refresh", json={"refresh_token": first["refresh_token"]})
    assert second["access_token"] != first["access_token"]
    user = Client(alice.base_url, alice.user_id, second["access_token"])
    assert user.get("account/whoami")["device_id"] == first["device_id"]


def test_a_used_refresh_token_is_refused(nobody, alice):
    first = refreshable(alice)
    second = nobody.post("refresh", json={"refresh_token": first["refresh_token"]})
    # The old one ends when the new tokens are used, so that a lost answer can be asked for again.
    Client(alice.base_url, alice.user_id, second["access_token"]).get("account/whoami")
    answer = nobody.post("refresh", json={"refresh_token": first["refresh_token"]}, status=(401, 403))
    assert answer["errcode"] in ("M_UNKNOWN_TOKEN", "M_FORBIDDEN")


def test_an_unknown_refresh_token_is_refused(nobody):
    answer = nobody.post("refresh", json={"refresh_token": "burrow"}, status=(401, 403))
    assert answer["errcode"] in ("M_UNKNOWN_TOKEN", "M_FORBIDDEN")
    nobody.post("refresh", json={}, status=400)


def test_no_refresh_token_unless_asked_for(nobody):
    assert "refresh_token" not in nobody.post("register", json=dummy(username=unique("plain")))


def test_password_change_ends_other_devices(alice):
    other = alice.login()
    alice.with_password("POST", "account/password", json={"new_password": "another burrow"})
    other.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    alice.get("account/whoami")
    alice.login(password="another burrow")
    identifier = {"type": "m.id.user", "user": alice.user_id}
    body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    alice.post("login", json=body, status=403, errcode="M_FORBIDDEN")


def test_password_change_may_keep_other_devices(alice):
    other = alice.login()
    body = {"new_password": "another burrow", "logout_devices": False}
    alice.with_password("POST", "account/password", json=body)
    other.get("account/whoami")


def test_a_password_change_that_is_sent_again_is_answered_as_it_was(alice):
    body = {"new_password": "another burrow"}
    session = alice.post("account/password", json=body, status=401)["session"]
    identifier = {"type": "m.id.user", "user": alice.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD, "session": session}
    for _ in range(2):
        assert alice.post("account/password", json={**body, "auth": auth}) == {}
    alice.post("account/password", json={"new_password": "a third burrow", "auth": auth}, status=403)
    alice.login(password="another burrow")


def test_a_password_change_whose_flows_were_asked_for_with_an_empty_body(alice):
    session = alice.post("account/password", json={}, status=401)["session"]
    identifier = {"type": "m.id.user", "user": alice.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "session": session}
    body = {"new_password": "another burrow", "logout_devices": False}
    wrong = {**body, "auth": {**auth, "password": "wrong"}}
    alice.post("account/password", json=wrong, status=401, errcode="M_FORBIDDEN")
    assert alice.post("account/password", json={**body, "auth": {**auth, "password": PASSWORD}}) == {}
    alice.login(password="another burrow")


@pytest.mark.ours("Synapse only logs it")
def test_the_first_body_of_an_authentication_is_its_body(alice):
    session = alice.post("account/password", json={}, status=401)["session"]
    identifier = {"type": "m.id.user", "user": alice.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "session": session}
    first = {"new_password": "another burrow", "auth": {**auth, "password": "wrong"}}
    alice.post("account/password", json=first, status=401)
    other = {"new_password": "a third burrow", "auth": {**auth, "password": PASSWORD}}
    alice.post("account/password", json=other, status=403, errcode="M_FORBIDDEN")
    alice.login()


def test_password_change_with_a_wrong_password(alice):
    body = {"new_password": "another burrow"}
    answer = alice.with_password("POST", "account/password", json=body, password="wrong", status=401)
    assert answer["errcode"] == "M_FORBIDDEN"
    assert answer["session"]
    alice.login()


def test_deactivation(alice, bob, room):
    alice.with_password("POST", "account/deactivate")
    alice.get("account/whoami", status=401, errcode="M_UNKNOWN_TOKEN")
    identifier = {"type": "m.id.user", "user": alice.user_id}
    body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    answer = bob.post("login", json=body, status=403)
    assert answer["errcode"] in ("M_FORBIDDEN", "M_USER_DEACTIVATED")
    name = alice.user_id[1:].split(":")[0]
    bob.post("register", json=dummy(username=name), status=400)
    left = bob.sync_until(lambda _: alice.user_id not in bob.get("rooms/{roomId}/joined_members", room)["joined"])
    assert left


def test_erasure_leaves_only_redacted_copies_for_who_comes_later(alice, bob, carol):
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    bob.sync()
    event_id = alice.send(room, "a secret")
    alice.put("profile/{userId}/{keyName}", alice.user_id, "displayname", json={"displayname": "Alice"})
    alice.with_password("POST", "account/deactivate", json={"erase": True})
    carol.join(room)

    def copies(client):
        last = client.send(room, "hi")
        around = client.get("rooms/{roomId}/context/{eventId}", room, last, query={"limit": 50})
        pages = [client.messages(room, limit=50)["chunk"], timeline(client.sync(), room), around["events_before"]]
        found = [event for page in pages for event in page if event["event_id"] == event_id]
        return [*found, client.get("rooms/{roomId}/event/{eventId}", room, event_id)]

    assert [copy["content"].get("body") for copy in copies(bob)] == ["a secret"] * 4
    assert [copy["content"] for copy in copies(carol)] == [{}] * 4
    assert "displayname" not in bob.get("profile/{userId}", alice.user_id, status=(200, 404))


def test_third_party_identifiers_are_an_empty_list(alice):
    assert alice.get("account/3pid")["threepids"] == []
