"""What must hold when all wires are whole, all servers up and nothing is under way: each breach is a finding."""

from collections import Counter
from itertools import combinations

from chaos import comparisons_of_devices, comparisons_of_rooms
from chaos.finding import NEAR_SECONDS, Finding


def states_agree(ledger):
    """All servers in a room have one state."""
    for room, by_server in ledger.states.items():
        for (one, mine), (other, theirs) in combinations(sorted(by_server.items()), 2):
            for key in sorted(mine.keys() | theirs.keys()):
                if mine.get(key) != theirs.get(key):
                    text = f"{room} {key}: {one} {mine.get(key)}, {other} {theirs.get(key)}"
                    yield Finding("state", text, key=key)


def clients_have_the_state(ledger):
    """Who adds up a sync's state has the server's."""
    for watcher in ledger.watchers:
        for room, state in watcher.state.items():
            served = ledger.states.get(room, {}).get(watcher.server)
            if served is None or watcher.membership.get(room) != "join":
                continue
            for key in sorted(state.keys() | served.keys()):
                wanted = served.get(key, (None, None))[0]
                if state.get(key) != wanted:
                    text = f"{watcher.user} in {room} {key}: {state.get(key)}, its server {wanted}"
                    # Such a client takes the last it was shown for the state, whatever has been resolved since.
                    last_shown = not watcher.state_after and state.get(key) in watcher.timeline.get(room, [])
                    kind = "client state by timeline" if last_shown else "client state"
                    yield Finding(kind, text, watcher.server, watcher.ours, key)


def memberships_agree(ledger):
    """A client's sync and all servers in the room say of a user what the user's own server says."""
    for watcher in ledger.watchers:
        for room, own in ledger.own.items():
            mine, synced = own.get(watcher.user), watcher.membership.get(room)
            if (mine == "join") != (synced == "join"):
                text = f"{watcher.user} in {room}: {synced} by sync, {mine} by its server"
                yield Finding("membership", text, watcher.server, watcher.ours)
            for server, state in ledger.states.get(room, {}).items():
                _, theirs = state.get(("m.room.member", watcher.user), (None, None))
                text = f"{watcher.user} in {room}: {theirs} by {server}, {mine} by its own, {synced} by sync"
                if (theirs == "join") != (mine == "join"):
                    yield Finding("membership elsewhere", text, server)
                elif (theirs == "invite") != (synced == "invite"):
                    yield Finding("invite elsewhere", text, watcher.server, watcher.ours)


def events_come_once(ledger):
    """Nobody who stays is sent an event twice, by sync or in history, and what was sent once is one event."""
    for watcher in ledger.watchers:
        shown = [("timeline", room, ids) for room, ids in watcher.timeline.items() if watcher.stayed(room) is not None]
        shown += [("history", room, ids) for room, ids in watcher.history.items()]
        for where, room, ids in shown:
            for event_id in [event_id for event_id, count in Counter(ids).items() if count > 1]:
                yield Finding("twice", f"{watcher.user} {where} of {room}: {event_id}", watcher.server, watcher.ours)
    for marker, count in Counter(sent.marker for sent in ledger.sent).items():
        if count > 1:
            yield Finding("sent twice", marker)


def _was_refused(ledger, sent, watcher, shown):
    """Whether an event came to another server where its sender had been turned out, or the room closed for a better one, of which
    its own server did not know: then nobody is shown it there."""
    late = (sent.room, sent.user) in ledger.turned_out or any(sent.room == old for old, _ in ledger.upgrades)
    # Synapse also takes them of users who had left on another branch.
    late = late or (not sent.ours and ledger.own.get(sent.room, {}).get(sent.user) != "join")
    return late and watcher.server != sent.server and (watcher.server, sent.event_id) not in shown


def events_come(ledger):
    """Who was in a room throughout is sent what is said there; who may see it finds it in the history."""
    rooms = {sent.room for sent in ledger.sent}
    shown = {
        (watcher.server, event_id)
        for watcher in ledger.watchers
        for room in rooms
        for event_id in watcher.was_shown(room) | {*watcher.history.get(room, [])}
    }
    for sent in ledger.sent:
        for watcher in ledger.watchers:
            if sent.may_be_seen_by(watcher) is not True or watcher.membership.get(sent.room) != "join":
                continue
            late = sent.came_late or _was_refused(ledger, sent, watcher, shown)
            if not late and not ledger.purged(sent, watcher.server):
                yield from _lacks(sent, watcher)


def _lacks(sent, watcher):
    whom = f"{watcher.user} of {sent.event_id} {sent.marker} by {sent.user} in {sent.room}"
    since = watcher.stayed(sent.room)
    was_there = "join" == sent.before.get(watcher.user) and since is not None
    if was_there and since + NEAR_SECONDS < sent.began and sent.event_id not in watcher.was_shown(sent.room):
        yield Finding("never synced", whom, watcher.server, watcher.ours)
    if sent.room in watcher.history and sent.event_id not in watcher.history[sent.room]:
        yield Finding("not in history", whom, watcher.server, watcher.ours)


def events_come_in_order(ledger):
    """What one server acknowledged before another event of its was asked for, comes before that one everywhere."""
    by_origin = {}
    for sent in sorted(ledger.sent, key=lambda sent: sent.began):
        by_origin.setdefault((sent.room, sent.server), []).append(sent)
    for watcher in ledger.watchers:
        for (room, _), events in by_origin.items():
            if watcher.stayed(room) is None:
                continue
            places = {event_id: place for place, event_id in enumerate(watcher.timeline.get(room, []))}
            known = [sent for sent in events if sent.event_id in places]
            for one, other in combinations(known, 2):
                if one.ended < other.began and places[other.event_id] < places[one.event_id]:
                    text = f"{watcher.user} in {room}: {other.marker} before {one.marker}"
                    yield Finding("order", text, watcher.server, watcher.ours)


def nothing_leaks(ledger):
    """Nobody is shown what they may not see, by sync, in history or when they ask for it by its id."""
    for sent in ledger.sent:
        for watcher in ledger.watchers:
            shown = watcher.was_shown(sent.room) | {*watcher.history.get(sent.room, []), *watcher.probed.get(sent.room, [])}
            if watcher.user != sent.user and sent.event_id in shown and sent.may_be_seen_by(watcher) is False:
                text = f"{watcher.user} saw {sent.event_id} {sent.marker} in {sent.room}, {sent.visibility[0]}"
                yield Finding("leak", text, watcher.server, watcher.ours)
    for server, ours, event_id in ledger.told:
        yield Finding("leak to a server", f"{server} told of {event_id}", server, ours)


def receipts_come(ledger):
    """Who was in a room when another read there, knows the last of what that one has read. Receipts that are still to be sent end
    with their server's process."""
    watchers = {watcher.user: watcher for watcher in ledger.watchers}
    for (room, user), (event_id, when) in ledger.receipts.items():
        if watchers[user].stayed(room) is None or room in ledger.shut:
            continue
        for watcher in ledger.watchers:
            since = watcher.stayed(room)
            if watcher.user == user or since is None or since + NEAR_SECONDS > when:
                continue
            if watcher.server != watchers[user].server and when < ledger.restarted.get(watchers[user].server, 0):
                continue
            if watcher.receipts.get((room, user)) != event_id:
                text = f"{watcher.user} has {watcher.receipts.get((room, user))} of {user}, not {event_id}, in {room}"
                yield Finding("receipt", text, watcher.server, watcher.ours)


ALL = [
    states_agree,
    clients_have_the_state,
    memberships_agree,
    events_come_once,
    events_come,
    events_come_in_order,
    nothing_leaks,
    receipts_come,
    *comparisons_of_devices.ALL,
    *comparisons_of_rooms.ALL,
]


def compare(ledger):
    return [finding for comparison in ALL for finding in comparison(ledger)]
