"""A clock that a test sets forward, for a server that is started with it: hours pass at once."""

import pathlib
import struct
import subprocess

HOUR = 60 * 60
SOURCE = pathlib.Path(__file__).with_name("clock.c")


class Clock:
    """Time as it is until it is set `ahead`. What is measured, not told, like pauses that are slept, passes as ever."""

    def __init__(self, folder):
        self.library, self.file = folder / "clock.so", folder / "clock"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", self.library, SOURCE, "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        self.file.write_bytes(struct.pack("=q", 0))

    @property
    def environment(self):
        """What a server is to be started with."""
        return {"LD_PRELOAD": str(self.library), "CLOCK_AHEAD": str(self.file)}

    def ahead(self, seconds):
        # In place, for servers have mapped it.
        with open(self.file, "r+b") as file:
            file.write(struct.pack("=q", seconds))
