"""Findings that are no fault of Warren, each with its reason. A run shows them apart and does not fail by them."""

# (kind, whether it is so of Synapse's answers alone, why)
KNOWN = [
    ("membership", True, "Synapse's sync goes on to show a room that its own state has the user out of"),
    ("never synced", True, "Synapse's clients find in the history alone what it fetched by itself, which is compared"),
    (
        "invite elsewhere",
        True,
        "Synapse takes an invite at once, and a kick from before it that comes later by transaction takes that back there",
    ),
    (
        "to-device order",
        True,
        "Synapse takes up the messages to devices of one transaction side by side, ten at a time",
    ),
    ("twice", True, "Synapse's sync shows a room from its last events on again after a resolution that had the user out of it and in"),
    ("client state", True, "what Synapse's syncs add up to is its own affair; its state is compared"),
    (
        "client state by timeline",
        False,
        "what a timeline shows may lose a resolution, which the specification has `use_state_after` for; this client did not ask so",
    ),
]


def reason_of(finding):
    """Why a finding is known, or None."""
    fits = (reason for kind, theirs, reason in KNOWN if kind == finding.kind and not (theirs and finding.ours))
    return next(fits, None)
