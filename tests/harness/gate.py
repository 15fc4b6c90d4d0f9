"""A gate before a server: it ends TLS, passes on what others ask and what is answered, keeps both, and holds what a test wants held.

Unlike a wire it knows what it carries: an answer can be held only by who knows which request it is to.
"""

import contextlib
import http.client
import json
import ssl
import threading

from harness.participant import FEDERATION, SECONDS_MAX
from harness.peer import Listener

TRANSACTIONS = f"{FEDERATION}v1/send/"
# What the gate does not pass on: what belongs to one connection, and a wish for what it would have to unpack.
OWN_HEADERS = {"connection", "accept-encoding"}


class Hold:
    """Keeps back the questions that it wants, or the answer to the next one, until a test has decided what becomes of them."""

    def __init__(self, is_wanted):
        self.is_wanted, self.is_lost, self.status, self.content = is_wanted, False, None, None
        self.there, self.decided = threading.Event(), threading.Event()

    def keep(self, status=None, content=None):
        self.status, self.content = status, content
        self.there.set()
        if not self.decided.wait(2 * SECONDS_MAX) or self.is_lost:
            raise ConnectionError("what was held is lost")

    def until_there(self):
        assert self.there.wait(SECONDS_MAX), f"nothing to hold within {SECONDS_MAX} s"

    def until_taken(self):
        """Waits for the answer to a transaction, which must say that all of it was taken."""
        self.until_there()
        assert self.status == 200, self.content
        assert not any("error" in result for result in json.loads(self.content)["pdus"].values()), self.content

    def pass_on(self):
        self.decided.set()

    def lose(self):
        """Ends the connection instead."""
        self.is_lost = True
        self.decided.set()


class Gate(Listener):
    """Others reach the server at a port of this machine by it. Shut (`closes_all`) the server is as good as down."""

    def __init__(self, authority, target):
        self.target, self.trust = target, ssl.create_default_context(cafile=authority.path)
        self.lock, self.held_questions, self.held_answers = threading.Lock(), [], []
        # What was answered to whom asked something, in order.
        self.answered = []
        super().__init__(authority.certificate("localhost", "127.0.0.1"))

    def hold_questions(self, *names):
        """Holds all questions of the server-server API that are called so, until they are let through."""
        starts = tuple(f"{FEDERATION}v1/{name}/" for name in names)
        self.held_questions.append(Hold(lambda request: request.target.startswith(starts)))
        return self.held_questions[-1]

    def hold_answer(self, text):
        """Holds the answer to the next transaction with this text in it."""
        hold = Hold(lambda request: is_transaction_with(request, text))
        with self.lock:
            self.held_answers.append(hold)
        return hold

    def answer_to(self, request):
        with self.lock:
            held = [hold for hold in self.held_answers if hold.is_wanted(request)]
            self.held_answers = [hold for hold in self.held_answers if hold not in held]
        for hold in self.held_questions:
            if hold.is_wanted(request):
                hold.keep()
        status, content, headers = self.passed_on(request)
        for hold in held:
            hold.keep(status, content)
        self.answered.append((request, status, content))
        return status, content, headers

    def passed_on(self, request):
        """The server's answer to the request, which stays as it was signed. If there is none the request is left without."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.target, timeout=SECONDS_MAX, context=self.trust)
        with contextlib.closing(connection):
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in OWN_HEADERS:
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            return response.status, response.read(), {"Content-Type": response.getheader("Content-Type", "application/json")}

    def times(self, text):
        """How many transactions have come so far with this text in them."""
        return sum(is_transaction_with(request, text) for request in list(self.requests))

    def answers_of(self, name):
        """The questions of that name with the JSON that they were answered with."""
        found = [(request, content) for request, _, content in self.answered if f"/{name}/" in request.target]
        return [(request, json.loads(content)) for request, content in found]

    def events_told(self):
        """The events of all transactions that were taken, in order."""
        sent = [request for request, status, _ in self.answered if is_transaction_with(request, "") and status == 200]
        return [event for request in sent for event in json.loads(request.body)["pdus"]]

    def close(self):
        for hold in (*self.held_questions, *self.held_answers):
            hold.lose()
        super().close()


def is_transaction_with(request, text):
    return request.target.startswith(TRANSACTIONS) and text.encode() in request.body
