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
    ours: bool = True

    @property
    def came_late(self):
        """Synapse takes messages of users whose leaving it is taking at that moment: others refuse them."""
        return not self.ours and self.after.get(self.user) != "join"

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
    user's own events; `changed`: user → when it was last told of their devices."""

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
    changed: dict = field(default_factory=dict)

    def stayed(self, room):
        """Since when the user is in the room, who came into it once and never left; else None."""
        stretches = self.stretches.get(room, [])
        return stretches[0][0] if len(stretches) == 1 and stretches[0][1] is None else None

    def was_shown(self, room):
        return {*self.timeline.get(room, []), *self.filled.get(room, [])}


@dataclass
class Device:
    """One device: when it was there, what it uploaded, and what came to it. `keys` are its identity keys; `sure` says whether its
    server has acknowledged all of its uploads, `exact` whether each claim of its keys was made at its server and answered."""

    user: str
    id: str
    server: str
    ours: bool = True
    since: float = 0.0
    keys: dict = None
    sure: bool = True
    exact: bool = True
    gone: bool = False
    one_time: dict = field(default_factory=dict)
    fallback: dict = field(default_factory=dict)
    uploaded: dict = field(default_factory=dict)
    count: int = None
    messages: list = field(default_factory=list)

    def one_time_since(self, name):
        """When its server had acknowledged a one-time key."""
        return self.uploaded.get(name, float("inf"))


@dataclass
class Message:
    """What was sent to a device, or to all of a user's: `*`. It never ended if nobody acknowledged it. A Warren tells a server
    that none of the sender's rooms has to do with nothing; else they have `met`."""

    marker: str
    sender: str
    receiver: str
    device: str
    began: float = 0.0
    ended: float = None
    met: bool = True


@dataclass
class Claim:
    """A key of a device that somebody got."""

    device: Device
    name: str
    key: dict
    began: float = 0.0
    ended: float = 0.0


@dataclass
class Change:
    """A field of a user's profile that was set. It never ended if nobody knows whether it was."""

    user: str
    field: str
    value: str
    began: float = 0.0
    ended: float = None


@dataclass
class Purge:
    """Of a room's history on one server: the messages that went and those that were to stay, of what a user of it may see."""

    server: str
    room: str
    user: str
    gone: set
    stay: set
    ended: float = 0.0


@dataclass
class Admission:
    """A user asked to come into a restricted room; whether they were in the room that is the condition."""

    room: str
    user: str
    server: str
    ours: bool
    entitled: bool
    status: int


@dataclass
class Ledger:
    """`states`: room → server → (type, key) → (event id, membership or None); `own`: room → user → the membership that the
    user's own server has; `receipts`: (room, user) → (event id, when); `changes` of devices: (user, when); `lists` of devices:
    server → user → device → keys; `shown` of profiles: server → user → field → value; `names`: room → user → the display name
    in the room that the user's own server has; `upgrades`: (old room, new room); `links`: room → server → (predecessor,
    replacement); `reports` of resynchronisations at rest: (room, server, report); `shut`: rooms that some server was shut out
    of, where receipts go lost; `turned_out`: (room, user) of kicks and bans; `restarted`:
    server → when for the last time."""

    watchers: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    messages: list = field(default_factory=list)
    receipts: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)
    own: dict = field(default_factory=dict)
    told: list = field(default_factory=list)
    devices: list = field(default_factory=list)
    claims: list = field(default_factory=list)
    changes: list = field(default_factory=list)
    lists: dict = field(default_factory=dict)
    profiles: list = field(default_factory=list)
    shown: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    upgrades: list = field(default_factory=list)
    links: dict = field(default_factory=dict)
    admissions: list = field(default_factory=list)
    purges: list = field(default_factory=list)
    reports: list = field(default_factory=list)
    shut: set = field(default_factory=set)
    turned_out: set = field(default_factory=set)
    restarted: dict = field(default_factory=dict)

    def leave_out(self, room):
        """Forgets a room whose servers cannot agree."""
        for rows in (self.states, self.own, self.names, self.links):
            rows.pop(room, None)
        self.sent = [sent for sent in self.sent if sent.room != room]
        self.receipts = {key: value for key, value in self.receipts.items() if key[0] != room}
        self.upgrades = [pair for pair in self.upgrades if room not in pair]
        for watcher in self.watchers:
            for rows in (watcher.timeline, watcher.filled, watcher.history, watcher.state):
                rows.pop(room, None)

    def purged(self, sent, server):
        """Whether a purge may have taken an event from a server, or from its own before that has told it everywhere."""
        purges = (purge for purge in self.purges if purge.room == sent.room and purge.server in (server, sent.server))
        return any(sent.began < purge.ended for purge in purges)
