"""Waiting for what nobody tells of when it comes: it is looked for again and again."""

import select
import time

PAUSE_SECONDS = 0.1


def until(look, seconds=60):
    """What `look` finds, as soon as that is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not there within {seconds} s: {found}"
        select.select([], [], [], PAUSE_SECONDS)
    return found
