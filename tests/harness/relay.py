"""A relay between servers: it passes requests on and answers back, and keeps back the answer that a test wants kept.

Unlike a wire it knows what it carries: an answer can be kept back only by who knows which request it is to.
"""

import contextlib
import http.client
import json
import ssl
import threading

from harness.peer import SECONDS_MAX, Listener

TRANSACTIONS = "/_matrix/federation/v1/send/"
# What the relay does not pass on: what belongs to one connection, and a wish for what it would have to unpack.
OWN_HEADERS = {"connection", "accept-encoding"}


class Hold:
    """The answer to one transaction, which is kept back as soon as it is there."""

    def __init__(self):
        self.status, self.content, self.is_lost = None, None, False
        self.there, self.decided = threading.Event(), threading.Event()

    def keep(self, status, content):
        """Keeps the answer back until a test has decided what becomes of it."""
        self.status, self.content = status, content
        self.there.set()
        if not self.decided.wait(2 * SECONDS_MAX) or self.is_lost:
            raise ConnectionError("the answer is lost")

    def until_taken(self):
        """Waits for the answer, which must say that all of the transaction was taken."""
        assert self.there.wait(SECONDS_MAX), f"no answer within {SECONDS_MAX} s"
        assert self.status == 200, self.content
        assert not any("error" in result for result in json.loads(self.content)["pdus"].values()), self.content

    def pass_on(self):
        self.decided.set()

    def lose(self):
        """Ends the connection without the answer."""
        self.is_lost = True
        self.decided.set()


class Relay(Listener):
    """Listens on a port, and passes what is asked there on to the server at another one."""

    def __init__(self, authority, target):
        self.target, self.trust = target, ssl.create_default_context(cafile=authority.path)
        self.lock, self.holds = threading.Lock(), {}
        super().__init__(authority.certificate("localhost", "127.0.0.1"))

    def hold(self, text):
        """Keeps back the answer to the next transaction with this text in it."""
        with self.lock:
            return self.holds.setdefault(text, Hold())

    def times(self, text):
        """How many transactions have come so far with this text in them."""
        return sum(is_transaction_with(request, text) for request in list(self.requests))

    def answer_to(self, request):
        with self.lock:
            texts = [text for text in self.holds if is_transaction_with(request, text)]
            holds = [self.holds.pop(text) for text in texts]
        status, content, headers = self.passed_on(request)
        for hold in holds:
            hold.keep(status, content)
        return status, content, headers

    def passed_on(self, request):
        """The server's answer. One that cannot be reached leaves the request without."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.target, timeout=SECONDS_MAX, context=self.trust)
        with contextlib.closing(connection):
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in OWN_HEADERS:
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            return response.status, response.read(), {"Content-Type": response.headers["Content-Type"]}


def is_transaction_with(request, text):
    return request.target.startswith(TRANSACTIONS) and text.encode() in request.body
