"""What was acknowledged to users and what clients and servers then showed: plain data, which the comparisons judge."""

from dataclasses import dataclass, field


@dataclass
class Sent:
    """An event that a server acknowledged, with the room's members as the sender's server had them before and after."""

    room: str
    event_id: str
    user: str
    server: str
    marker: str
    began: float = 0.0
    ended: float = 0.0
    visibility: tuple = ("shared", "shared")
    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)

    def may_be_seen_by(self, watcher):
        """Whether the user may see it; None where that depends on what came first."""
        visibility, membership = self.visibility[0], self.before.get(watcher.user)
        if self.visibility[1] != visibility or self.after.get(watcher.user) != membership:
            return None
        if visibility == "world_readable" or membership == "join":
            return True
        if visibility == "invited":
            return membership == "invite"
        if visibility == "joined":
            return False
        # What is shared is for all who are in the room at any later time.
        return any(end is None or end > self.ended for _, end in watcher.stretches.get(self.room, []))


@dataclass
class Watcher:
    """What the client of one user was told. Stretches are the times in which it was in a room: `[from, to or None]`; `own`, the
    user's own events."""

    user: str
    server: str
    ours: bool = True
    state_after: bool = False
    stretches: dict = field(default_factory=dict)
    timeline: dict = field(default_factory=dict)
    own: set = field(default_factory=set)
    filled: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)
    probed: dict = field(default_factory=dict)
    state: dict = field(default_factory=dict)
    membership: dict = field(default_factory=dict)
    receipts: dict = field(default_factory=dict)
    messages: list = field(default_factory=list)

    def stayed(self, room):
        """Since when the user is in the room, who came into it once and never left; else None."""
        stretches = self.stretches.get(room, [])
        return stretches[0][0] if len(stretches) == 1 and stretches[0][1] is None else None

    def was_shown(self, room):
        return {*self.timeline.get(room, []), *self.filled.get(room, [])}


@dataclass
class Ledger:
    """`states`: room → server → (type, key) → (event id, membership or None); `own`: room → user → the membership that the
    user's own server has; `messages`: (marker, receiver); `receipts`: (room, user) → (event id, when)."""

    watchers: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    messages: list = field(default_factory=list)
    receipts: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)
    own: dict = field(default_factory=dict)
    told: list = field(default_factory=list)
