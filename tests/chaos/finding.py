"""What a comparison, or the play itself, found."""

from dataclasses import dataclass

# Clocks of acts are read around requests: what a client saw within this time of its join may be on either side of it.
NEAR_SECONDS = 1


@dataclass(frozen=True)
class Finding:
    """`server` is whose answer is wrong, where that is known; `ours` whether that is a Warren."""

    kind: str
    text: str
    server: str = ""
    ours: bool = True
    key: tuple = ()
