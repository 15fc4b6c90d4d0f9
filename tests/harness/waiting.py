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


def readable(sources, seconds=None):
    """Those of the sources that can be read from, within that time. Whatever their numbers are: `select` knows of a thousand."""
    poll = select.poll()
    by_number = {source if isinstance(source, int) else source.fileno(): source for source in sources}
    for number in by_number:
        poll.register(number, select.POLLIN)
    ready = poll.poll(None if seconds is None else 1000 * seconds)
    return [by_number[number] for number, _ in ready]
