"""What must hold of users' devices at rest: their keys, the lists of them, what is sent to them, and what users show of themselves."""

from collections import Counter
from itertools import combinations

from chaos.finding import NEAR_SECONDS, Finding


def _of(device):
    return f"{device.user} {device.id}"


def _for(device, ledger):
    """The messages that are to come to a device, and those that may: it was logged in while they were on their way."""
    mine = [sent for sent in ledger.messages if sent.receiver == device.user and sent.device in ("*", device.id)]
    due = [sent for sent in mine if sent.met and device.since < sent.began and sent.ended is not None]
    return due, [sent for sent in mine if sent not in due]


def messages_to_devices_come_once(ledger):
    for device in ledger.devices:
        if device.gone:
            continue
        counts, (due, possible) = Counter(device.messages), _for(device, ledger)
        for sent in due:
            if counts[sent.marker] != 1:
                text = f"{sent.marker} of {sent.sender} came to {_of(device)} {counts[sent.marker]} times"
                yield Finding("to-device", text, device.server, device.ours)
        known = {sent.marker for sent in due}
        for marker in counts.keys() - known:
            if counts[marker] > 1 or marker not in {sent.marker for sent in possible}:
                text = f"{marker} came to {_of(device)} {counts[marker]} times, for which it was not"
                yield Finding("to-device", text, device.server, device.ours)


def messages_to_devices_come_in_order(ledger):
    """What one user sent to a device before another message comes before that."""
    sent_by = {sent.marker: sent for sent in ledger.messages}
    for device in ledger.devices:
        came = [sent_by[marker] for marker in device.messages if marker in sent_by]
        for one, other in combinations(came, 2):
            if one.sender == other.sender and other.ended is not None and other.ended < one.began:
                text = f"{_of(device)} has {one.marker} before {other.marker} of {one.sender}"
                yield Finding("to-device order", text, device.server, device.ours)


def keys_are_given_once(ledger):
    """Each one-time key is given to one who asks, and is one that was uploaded."""
    for device in ledger.devices:
        claims = [claim for claim in ledger.claims if claim.device is device]
        given = Counter(claim.name for claim in claims if claim.name not in device.fallback)
        for name, count in given.items():
            if count > 1:
                yield Finding("key given twice", f"{name} of {_of(device)}, {count} times", device.server, device.ours)
        known = device.one_time | device.fallback
        for claim in claims:
            if known.get(claim.name) != claim.key:
                text = f"{claim.name} of {_of(device)} is {claim.key}, not {known.get(claim.name)}"
                yield Finding("unknown key", text, device.server, device.ours)
        yield from _counts(device, given)


def _counts(device, given):
    """The server holds no key that it has given, and has lost none where it alone was asked."""
    left = len(device.one_time) - len(given)
    if device.count is None or device.gone:
        return
    if device.count > left or (device.sure and device.exact and device.count < left):
        text = f"{device.count} of {_of(device)} are left, of {len(device.one_time)} {len(given)} were given"
        yield Finding("key count", text, device.server, device.ours)


def fallback_keys_come_last(ledger):
    """Who gets a fallback key gets it because no one-time key was left."""
    for last in ledger.claims:
        if last.name not in last.device.fallback:
            continue
        for claim in ledger.claims:
            later = claim.device is last.device and claim.name in claim.device.one_time and claim.began > last.ended
            if later and claim.device.one_time_since(claim.name) < last.began:
                text = f"{claim.name} of {_of(claim.device)} was left when {last.name} was given"
                yield Finding("fallback key", text, claim.device.server, claim.device.ours)


def lists_of_devices_agree(ledger):
    """Each server tells of each device that is there the keys that it uploaded, and of no other."""
    servers = {watcher.server: watcher.ours for watcher in ledger.watchers}
    for server, told in ledger.lists.items():
        unsure = {(device.user, device.id) for device in ledger.devices if not device.sure}
        for user in sorted({watcher.user for watcher in ledger.watchers}):
            mine = [device for device in ledger.devices if device.user == user and not device.gone]
            wanted = {device.id: device.keys for device in mine if device.keys}
            found = told.get(user, {})
            for id in sorted(wanted.keys() | found.keys()):
                if found.get(id) != wanted.get(id) and (user, id) not in unsure:
                    text = f"{server} tells of {user} {id} {found.get(id)}, not {wanted.get(id)}"
                    yield Finding("device list", text, server, servers[server])


def changes_of_devices_are_told(ledger):
    """Who shares a room with a user is told when a device of theirs comes with keys, or goes."""
    watchers = {watcher.user: watcher for watcher in ledger.watchers}
    for user, when in ledger.changes:
        subject = watchers[user]
        for watcher in ledger.watchers:
            if watcher is subject or watcher.changed.get(user, -1) >= when:
                continue
            both = (subject.stayed(room) is not None and watcher.stayed(room) is not None for room in subject.stretches)
            rooms = [room for room, shared in zip(subject.stretches, both) if shared]
            sharing = [room for room in rooms if max(subject.stayed(room), watcher.stayed(room)) + NEAR_SECONDS < when]
            if sharing:
                text = f"{watcher.user} was not told that devices of {user} changed at {when:.1f}, sharing {sharing[0]}"
                yield Finding("device change", text, watcher.server, watcher.ours)


def profiles_agree(ledger):
    """All servers tell of a user what was set last; of changes that were made at once, any may be the last."""
    servers = {watcher.server: watcher.ours for watcher in ledger.watchers}
    changes = {}
    for change in ledger.profiles:
        changes.setdefault((change.user, change.field), []).append(change)
    for (user, field), mine in changes.items():
        sure = [change for change in mine if change.ended is not None]
        last = [change for change in mine if not any((change.ended or other.began) < other.began for other in sure)]
        for server, shown in ledger.shown.items():
            value = shown.get(user, {}).get(field)
            if sure and value not in {change.value for change in last}:
                text = f"{server} tells {field} of {user}: {value}, not {[change.value for change in last]}"
                yield Finding("profile", text, server, servers[server])


def names_are_shown_in_rooms(ledger):
    """In the rooms that a user is in they have the name of their profile."""
    fields = [change for change in ledger.profiles if change.field == "displayname"]
    for watcher in ledger.watchers:
        mine = [change for change in fields if change.user == watcher.user]
        shown = ledger.shown.get(watcher.server, {}).get(watcher.user, {}).get("displayname")
        if not mine or any(change.ended is None for change in mine):
            continue
        for room, names in ledger.names.items():
            if ledger.own.get(room, {}).get(watcher.user) == "join" and names.get(watcher.user) != shown:
                text = f"{watcher.user} is {names.get(watcher.user)} in {room}, {shown} in their profile"
                yield Finding("name in a room", text, watcher.server, watcher.ours)


ALL = [
    messages_to_devices_come_once,
    messages_to_devices_come_in_order,
    keys_are_given_once,
    fallback_keys_come_last,
    lists_of_devices_agree,
    changes_of_devices_are_told,
    profiles_agree,
    names_are_shown_in_rooms,
]
