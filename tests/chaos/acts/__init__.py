"""What users do and what befalls servers. An act is a function of the play and a random source of its own, which names a weight;
what it returns is noted."""

from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Act:
    name: str
    play: Callable
    calm: float
    wild: float


ALL = []


def act(calm, wild=None):
    """Adds a function to the acts, with how often it is done in calm runs and in wild ones."""

    def added(function):
        ALL.append(Act(function.__name__, function, calm, calm if wild is None else wild))
        return function

    return added


def load():
    """All acts, always in one order: a seed names them by it."""
    from chaos.acts import administration, devices, faults, memberships, messages, profiles, rooms  # noqa: F401

    return sorted(ALL, key=lambda act: act.name)
