"""A server of the domain name system, written by hand: addresses and services that a test names (RFC 1035, RFC 2782)."""

import ipaddress
import socketserver
import struct
import threading

A, AAAA, SRV = 1, 28, 33
NAME_ERROR = 3


def _encoded(name):
    labels = [label for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def _question(packet):
    """Name and type of the question, and where it ends."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
        at += 1 + packet[at]
    (kind,) = struct.unpack(">H", packet[at + 1 : at + 3])
    return ".".join(labels).lower(), kind, at + 5


class Names:
    """Answers on a port of its own. `addresses`: name → addresses, or a function that names those of this moment;
    `services`: name → (priority, weight, port, target); `silent`: names and kinds of records that nobody answers for."""

    def __init__(self):
        self.addresses, self.services, self.asked, self.silent = {}, {}, [], set()
        names = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                packet, socket = self.request
                answer = names.answer(packet)
                if answer:
                    socket.sendto(answer, self.client_address)

        self.udp = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self.udp.daemon_threads = True
        self.address = f"127.0.0.1:{self.udp.server_address[1]}"
        threading.Thread(target=self.udp.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, packet):
        name, kind, end = _question(packet)
        self.asked.append((name, kind))
        if (name, kind) in self.silent:
            return None
        records = [data for wanted, data in self._records(name) if wanted == kind]
        known = name in self.addresses or name in self.services
        # An answer with authority, recursion desired and available; a compressed name points at the question.
        flags = 0x8580 | (0 if known else NAME_ERROR)
        head = packet[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
        rows = [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(data)) + data for data in records]
        return head + packet[12:end] + b"".join(rows)

    def _records(self, name):
        addresses = self.addresses.get(name, [])
        for address in map(ipaddress.ip_address, addresses() if callable(addresses) else addresses):
            yield (A if address.version == 4 else AAAA), address.packed
        for priority, weight, port, target in self.services.get(name, []):
            yield SRV, struct.pack(">HHH", priority, weight, port) + _encoded(target)

    def close(self):
        self.udp.shutdown()
        self.udp.server_close()
