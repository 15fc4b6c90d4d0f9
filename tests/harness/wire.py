"""Wires between servers: they carry bytes, and know nothing of what they mean. A test can cut them."""

import contextlib
import socket
import threading

from harness.waiting import readable


class Wire:
    """Listens on a port and carries each connection to another one, as long as it is whole."""

    def __init__(self, target, port=0):
        self.target, self.is_cut = target, False
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.lock, self.connections = threading.Lock(), set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near):
        with near:
            try:
                far = socket.create_connection(("127.0.0.1", self._target_of(near)))
            except OSError:
                return
            with far:
                with self.lock:
                    if self.is_cut:
                        return
                    self.connections |= {near, far}
                try:
                    while self._carry_some(near, far):
                        pass
                except OSError:
                    pass
                finally:
                    with self.lock:
                        self.connections -= {near, far}

    def _target_of(self, near):
        return self.target

    def _carry_some(self, near, far):
        for source in readable([near, far]):
            data = source.recv(65_536)
            if not data:
                return False
            (far if source is near else near).sendall(data)
        return True

    def cut(self):
        """Ends all connections; those that are begun from now on end at once."""
        with self.lock:
            self.is_cut = True
            for connection in self.connections:
                # One that has just ended by itself is as good.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self):
        with self.lock:
            self.is_cut = False

    def close(self):
        self.cut()
        self.listener.close()


class Proxy(Wire):
    """Carries each connection to the port of this machine that stands for the host and port that are asked for (RFC 9110,
    "CONNECT"): for who takes addresses from the system alone, and for ports that are not a test's."""

    def __init__(self, places):
        self.places, self.asked = places, set()
        super().__init__(None)

    def _target_of(self, near):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            # Byte by byte: what comes behind the head is for who is asked for.
            byte = near.recv(1)
            if not byte:
                raise ConnectionError("gone before the end of the request")
            head += byte
        wanted = head.split(b" ")[1].decode()
        self.asked.add(wanted)
        if wanted not in self.places:
            raise ConnectionError(f"{wanted} is nowhere")
        near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        return self.places[wanted]
