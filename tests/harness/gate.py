"""A gate before a server: what others ask it passes through, is kept, and is held where a test wants that."""

import http.client
import json
import ssl
import threading

from harness.participant import FEDERATION, SECONDS_MAX
from harness.peer import Listener


class Gate(Listener):
    """Others reach the server that it leads to at its port. Shut (`closes_all`) the server is as good as down."""

    def __init__(self, authority):
        super().__init__(authority.certificate("localhost", "127.0.0.1"))
        self.trusted = ssl.create_default_context(cafile=authority.path)
        # The port of the server; what is held: the beginnings of paths; whether something is, and may go on.
        self.target, self.held = None, ()
        self.is_held, self.may_pass = threading.Event(), threading.Event()
        # What was answered to whom asked something, in order.
        self.answered = []

    def hold(self, *names):
        """Holds the questions of the server-server API that are called so, until they are let through."""
        self.held = tuple(f"{FEDERATION}v1/{name}/" for name in names)

    def until_held(self):
        assert self.is_held.wait(SECONDS_MAX), [request.target for request in self.requests]

    def answer_to(self, request):
        if self.held and request.target.startswith(self.held):
            self.is_held.set()
            self.may_pass.wait(SECONDS_MAX)
        status, data = self.pass_on(request)
        self.answered.append((request, status, data))
        return status, data

    def pass_on(self, request):
        """As it came, for what it was signed by must not change. A body of any length is one that is known here."""
        connection = http.client.HTTPSConnection("localhost", self.target, timeout=SECONDS_MAX, context=self.trusted)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name in ("Host", "Authorization", "Content-Type"):
                if name in request.headers:
                    connection.putheader(name, request.headers[name])
            if request.body:
                connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answers_of(self, name):
        """The questions of that name with the JSON that they were answered with."""
        found = [(request, data) for request, _, data in self.answered if f"/{name}/" in request.target]
        return [(request, json.loads(data)) for request, data in found]

    def events_told(self):
        """The events of all transactions that were taken, in order."""
        sent = [json.loads(request.body) for request, status, _ in self.answered if "/send/" in request.target and status == 200]
        return [event for transaction in sent for event in transaction["pdus"]]

    def close(self):
        self.may_pass.set()
        super().close()
