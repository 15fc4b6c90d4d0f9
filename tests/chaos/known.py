"""Findings that are no fault of Warren, each with its reason. A run shows them apart and does not fail by them."""

# (kind, why): of what Synapse tells its own users, alone.
KNOWN = [
    ("membership", "Synapse's sync goes on to show a room that its own state has the user out of"),
]


def reason_of(finding):
    """Why a finding is known, or None. Only what Synapse itself tells its own users can be."""
    if finding.ours:
        return None
    return next((reason for kind, reason in KNOWN if kind == finding.kind), None)
