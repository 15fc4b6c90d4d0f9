"""Many senders at once, each on its own connection, that remember what the server acknowledged.

A sender sends its messages one after the other, so their order is known; a message that was not acknowledged is sent
again, with the same transaction id, by the next run.
"""

import http.client
import json
import threading

from harness.client import address

# A send that takes longer than this has failed, whatever the server does.
SECONDS_MAX = 30


class Sender:
    """One sequence of messages into one room. Message `n` has the body `name/n` and the transaction id `name-n`."""

    def __init__(self, name, client, room):
        self.name, self.client, self.room = name, client, room
        # The acknowledged messages: number → event id. The next number may have been sent before and be stored.
        self.acknowledged = {}
        self.refusals = []

    @property
    def next_number(self):
        return len(self.acknowledged)

    def run(self, port, stop, counted):
        """Sends until `stop` is set, the connection breaks, or a message is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
        try:
            while not stop.is_set() and self.send_next(connection):
                counted()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    def send_next(self, connection):
        """Sends one message; whether it was acknowledged."""
        number = self.next_number
        path = "rooms/{roomId}/send/m.room.message/{txnId}"
        path = address(path, self.room, f"{self.name}-{number}")
        body = json.dumps({"msgtype": "m.text", "body": f"{self.name}/{number}"})
        headers = {"Authorization": f"Bearer {self.client.token}", "Content-Type": "application/json"}
        connection.request("PUT", path, body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status == 200:
            self.acknowledged[number] = answer["event_id"]
        else:
            self.refusals.append((response.status, answer))
        return response.status == 200


class Load:
    """All senders of a run."""

    def __init__(self, senders):
        self.senders = senders
        self.count = 0
        self.changed = threading.Condition()
        self.last, self.then = None, None

    def _counted(self):
        with self.changed:
            self.count += 1
            is_last = self.count == self.last
            self.changed.notify_all()
        if is_last:
            self.then()

    def start(self, port, more=None, then=None):
        """Lets all send. With so many further acknowledgements `then` is called by who has the last of them, because whoever
        waits for it gets its turn among so many threads only after hundreds more."""
        self.last, self.then = more and self.count + more, then
        self.stop = threading.Event()
        arguments = (port, self.stop, self._counted)
        self.threads = [threading.Thread(target=sender.run, args=arguments) for sender in self.senders]
        for thread in self.threads:
            thread.start()

    def wait_for(self, more):
        """Waits for so many further acknowledgements; whether they came before the senders ended."""
        with self.changed:
            wanted = self.count + more
            while self.count < wanted and any(thread.is_alive() for thread in self.threads):
                self.changed.wait(0.2)
            return self.count >= wanted

    def finish(self):
        self.stop.set()
        self.end()

    def end(self):
        """Waits until nobody sends any more."""
        for thread in self.threads:
            thread.join()

    def check(self, pages):
        """Compares what is acknowledged with what rooms hold: room → events, oldest first."""
        for room, events in pages.items():
            seen = {}
            for event in events:
                name, _, number = event["content"].get("body", "").rpartition("/")
                seen.setdefault(name, []).append((int(number), event["event_id"]))
            for sender in self.senders:
                if sender.room == room:
                    check_sender(sender, seen.get(sender.name, []))


def check_sender(sender, seen):
    """Every acknowledged message once, in order; at most the one in flight besides."""
    wanted = sorted(sender.acknowledged.items())
    assert seen[: len(wanted)] == wanted, difference(sender, wanted, seen)
    rest = [number for number, _ in seen[len(wanted) :]]
    assert rest in ([], [sender.next_number]), f"{sender.name}: besides what was acknowledged there is {rest}"


def difference(sender, wanted, seen):
    for at, message in enumerate(wanted):
        if at >= len(seen) or seen[at] != message:
            found = seen[at] if at < len(seen) else "nothing"
            return f"{sender.name}: acknowledged {message}, found {found} in its place"
    return f"{sender.name}: more than was acknowledged"


def room_messages(client, room, limit=1000):
    """All messages of a room, oldest first, read so many at a time."""
    events, query = [], {"dir": "b", "limit": limit, "filter": '{"types": ["m.room.message"]}'}
    while True:
        page = client.get("rooms/{roomId}/messages", room, query=query)
        events += page["chunk"]
        if "end" not in page:
            return events[::-1]
        query["from"] = page["end"]
