"""A clock that a test sets forward, for a server that is started with it: hours pass at once."""

import pathlib
import struct
import subprocess

HOUR = 60 * 60
SOURCE = pathlib.Path(__file__).with_name("clock.c")


class Clock:
    """Time as it is until it is set `ahead`; what is measured, not told, passes as ever until it is made to pass."""

    def __init__(self, folder):
        self.library, self.file = folder / "clock.so", folder / "clock"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", self.library, SOURCE, "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        self.passed = 0
        self.file.write_bytes(struct.pack("=qq", 0, 0))

    @property
    def environment(self):
        """What a server is to be started with."""
        return {"LD_PRELOAD": str(self.library), "CLOCK_AHEAD": str(self.file)}

    def ahead(self, seconds):
        self._write(0, seconds)

    def passes(self, seconds):
        """More is over of all that is measured; who sleeps sees that when woken, as by a request."""
        self.passed += seconds
        self._write(8, self.passed)

    def _write(self, at, seconds):
        # In place, for servers have mapped it.
        with open(self.file, "r+b") as file:
            file.seek(at)
            file.write(struct.pack("=q", seconds))
