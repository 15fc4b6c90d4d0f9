"""A Matrix client for tests: every answer it gets is validated against the specification before a test sees it."""

import itertools
import os
import re
import secrets
import time
import urllib.parse

import requests

from harness import specification

PASSWORD = "correct horse battery staple"
# No answer of a healthy server takes this long; long polls ask for less.
SECONDS_MAX = 40
# The homeserver that is tested in Warren's place, if any; see `conftest.py`.
PEER = os.environ.get("HOMESERVER_PEER")
_counter = itertools.count(1)
_run = secrets.token_hex(3)


def unique(word):
    """A name that no other test uses, on a server that may have seen earlier runs."""
    return f"{word}-{_run}-{next(_counter)}"


def address(template, *values):
    """Fills the `{…}` of a path with escaped values. A path without a leading slash is below `/_matrix/client/v3/`."""
    if not template.startswith("/"):
        template = f"/_matrix/client/v3/{template}"
    left = iter(values)
    path = re.sub(r"\{[^}]+\}", lambda _: urllib.parse.quote(str(next(left)), safe=""), template)
    assert next(left, None) is None, f"too many values for {template}"
    return path


def without_nulls(value):
    """Synapse writes null where the specification has a field absent."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


class Client:
    """One device of one user, or nobody while `token` is None."""

    # Whether answers are judged; those of another implementation that stands beside ours are not.
    validates = True

    def __init__(self, base_url, user_id=None, token=None, device_id=None):
        self.base_url, self.user_id, self.token, self.device_id = base_url, user_id, token, device_id
        self.http = requests.Session()
        # The server under test is asked itself, whatever proxy its tester has.
        self.http.trust_env = False
        self.since = None

    @property
    def server_name(self):
        return self.user_id.split(":", 1)[1]

    # -- requests ------------------------------------------------------------------------------------------------

    def send_raw(self, method, path, **arguments):
        """One request, nothing checked: the `requests` response."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers.update(arguments.pop("headers", {}))
        arguments.setdefault("timeout", SECONDS_MAX)
        response = self.http.request(method, self.base_url + path, headers=headers, **arguments)
        specification.note_answer(method, path, response.status_code)
        return response

    def call(self, method, template, *values, json=None, query=None, status=200, errcode=None, **more):
        """One request; asserts status, error code and schema of the answer, and returns its JSON body."""
        path = address(template, *values)
        if method in ("PUT", "POST") and json is None and "data" not in more:
            json = {}
        response = self.send_raw(method, path, json=json, params=query, **more)
        shown = f"{method} {path} → {response.status_code} {response.text[:2000]}"
        wanted = status if isinstance(status, tuple) else (status,)
        assert response.status_code in wanted, f"{shown}\nwanted {wanted}"
        assert response.headers.get("Content-Type", "").startswith("application/json"), shown
        body = response.json()
        body = without_nulls(body) if PEER == "synapse" else body
        found = self.validates and specification.response_faults(method, path, response.status_code, body)
        assert not found, f"{shown}\ndoes not fit the specification:\n  " + "\n  ".join(found)
        if errcode:
            assert body["errcode"] == errcode, shown
        return body

    def get(self, template, *values, **more):
        return self.call("GET", template, *values, **more)

    def put(self, template, *values, **more):
        return self.call("PUT", template, *values, **more)

    def post(self, template, *values, **more):
        return self.call("POST", template, *values, **more)

    def delete(self, template, *values, **more):
        return self.call("DELETE", template, *values, **more)

    # -- accounts ------------------------------------------------------------------------------------------------

    def register(self, word="user", **more):
        """A new account on the same server, as a client of its own."""
        body = {"username": unique(word), "password": PASSWORD, "auth": {"type": "m.login.dummy"}, **more}
        return self.signed_in(type(self)(self.base_url).post("register", json=body))

    def login(self, password=PASSWORD, **more):
        """A new device of the same user."""
        identifier = {"type": "m.id.user", "user": self.user_id}
        body = {"type": "m.login.password", "identifier": identifier, "password": password, **more}
        return self.signed_in(type(self)(self.base_url).post("login", json=body))

    def signed_in(self, answer):
        return type(self)(self.base_url, answer["user_id"], answer["access_token"], answer["device_id"])

    def with_password(self, method, template, *values, json=None, password=PASSWORD, status=200, **more):
        """A request that wants the password: the first try must be told so, the second carries it."""
        wanted = self.call(method, template, *values, json=json or {}, status=401)
        assert {"stages": ["m.login.password"]} in wanted["flows"], wanted
        identifier = {"type": "m.id.user", "user": self.user_id}
        auth = {
            "type": "m.login.password",
            "session": wanted["session"],
            "identifier": identifier,
            "password": password,
        }
        return self.call(method, template, *values, json={**(json or {}), "auth": auth}, status=status, **more)

    # -- rooms ---------------------------------------------------------------------------------------------------

    def create_room(self, **body):
        return self.post("createRoom", json=body)["room_id"]

    def join(self, room, **more):
        return self.post("join/{roomIdOrAlias}", room, **more)

    def invite(self, room, user, **more):
        return self.post("rooms/{roomId}/invite", room, json={"user_id": user.user_id}, **more)

    def leave(self, room, **more):
        return self.post("rooms/{roomId}/leave", room, **more)

    def send(self, room, content, type="m.room.message", txn=None, **more):
        """Sends an event and returns its ID. A plain string is a text message."""
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        path = "rooms/{roomId}/send/{eventType}/{txnId}"
        answer = self.put(path, room, type, txn or unique("txn"), json=content, **more)
        return answer.get("event_id", answer)

    def set_state(self, room, type, content, key="", **more):
        answer = self.put("rooms/{roomId}/state/{eventType}/{stateKey}", room, type, key, json=content, **more)
        return answer.get("event_id", answer)

    def state(self, room, type, key="", **more):
        return self.get("rooms/{roomId}/state/{eventType}/{stateKey}", room, type, key, **more)

    def messages(self, room, direction="b", **query):
        return self.get("rooms/{roomId}/messages", room, query={"dir": direction, **query})

    # -- sync ----------------------------------------------------------------------------------------------------

    def sync(self, timeout=0, **query):
        """The next sync after the last one of this client. Its events are validated as events, not by the schemas of their
        types, which `specification.event_faults` knows."""
        query = {"timeout": timeout, **query}
        if self.since is not None:
            query.setdefault("since", self.since)
        answer = self.get("sync", query=query)
        self.since = answer["next_batch"]
        return answer

    def sync_until(self, done, seconds=60, **query):
        """Syncs on until `done(answer)` gives something, and returns that."""
        end = time.monotonic() + seconds
        while True:
            answer = self.sync(timeout=5000 if self.since else 0, **query)
            found = done(answer)
            if found:
                return found
            assert time.monotonic() < end, f"not seen within {seconds} s; the last answer: {answer}"


def joined(answer, room):
    """What a sync answer says of a joined room, or an empty object."""
    return answer.get("rooms", {}).get("join", {}).get(room, {})


def timeline(answer, room):
    return joined(answer, room).get("timeline", {}).get("events", [])


def of_type(events, type):
    return [event for event in events if event["type"] == type]


def bodies(events):
    """The texts of the messages among events, in their order."""
    return [event["content"].get("body") for event in of_type(events, "m.room.message")]
