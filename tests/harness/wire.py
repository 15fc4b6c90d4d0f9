"""A wire between servers that a test can cut: it carries bytes, and knows nothing of what they mean."""

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
                far = socket.create_connection(("127.0.0.1", self.target))
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
