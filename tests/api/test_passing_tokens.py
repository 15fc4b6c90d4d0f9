"""Tokens that are passed on: to log in on another device, to prove to others who one is (spec: Login, OpenID)."""

from harness.client import Client

GET_TOKEN = "/_matrix/client/v1/login/get_token"
USERINFO = "/_matrix/federation/v1/openid/userinfo"
OPENID = "user/{userId}/openid/request_token"


def test_a_token_logs_another_device_in_once(alice, nobody):
    token = alice.with_password("POST", GET_TOKEN)["login_token"]
    body = {"type": "m.login.token", "token": token}
    other = nobody.signed_in(nobody.post("login", json=body))
    assert other.user_id == alice.user_id and other.device_id != alice.device_id
    assert other.get("account/whoami")["user_id"] == alice.user_id
    nobody.post("login", json=body, status=403, errcode="M_FORBIDDEN")


def test_a_token_to_log_in_wants_the_password(alice):
    alice.with_password("POST", GET_TOKEN, password="wrong", status=401)


def test_others_are_told_who_a_token_is_of(alice, bob):
    answer = alice.post(OPENID, alice.user_id)
    assert answer["matrix_server_name"] == alice.server_name
    asker = Client(alice.base_url)
    assert asker.get(USERINFO, query={"access_token": answer["access_token"]}) == {"sub": alice.user_id}
    asker.get(USERINFO, query={"access_token": "burrow"}, status=401, errcode="M_UNKNOWN_TOKEN")
    asker.get(USERINFO, status=401, errcode="M_MISSING_TOKEN")
    bob.post(OPENID, alice.user_id, status=403, errcode="M_FORBIDDEN")
