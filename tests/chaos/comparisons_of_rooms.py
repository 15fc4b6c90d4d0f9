"""What must hold of what is done to whole rooms: upgrades, restrictions, purges, resynchronisations."""

from chaos.finding import Finding


def upgrades_lead_on(ledger):
    """A room's replacement is one that an upgrade made, and leads back to it."""
    for old, new in ledger.upgrades:
        for server, (predecessor, _) in ledger.links.get(new, {}).items():
            if predecessor != old:
                yield Finding("upgrade", f"{server} has {new} follow {predecessor}, not {old}", server)
        made = {after for before, after in ledger.upgrades if before == old}
        for server, (_, replacement) in ledger.links.get(old, {}).items():
            if replacement not in made:
                yield Finding("upgrade", f"{server} has {replacement} replace {old}, not {made}", server)


def who_is_entitled_comes_in(ledger):
    """Into a restricted room come those alone who are in the room that it asks for."""
    for asked in ledger.admissions:
        if asked.entitled != (asked.status == 200):
            text = f"{asked.user}, {'' if asked.entitled else 'not '}entitled, was answered {asked.status} by {asked.room}"
            yield Finding("admission", text, asked.server, asked.ours)


def what_was_purged_stays_away(ledger):
    """What was purged does not come back to those who page, and nothing else went with it."""
    for purge in ledger.purges:
        for watcher in ledger.watchers:
            if watcher.server != purge.server or purge.room not in watcher.history:
                continue
            history = set(watcher.history[purge.room])
            for event_id in sorted(purge.gone & history):
                yield Finding("purged", f"{watcher.user} has {event_id} again in {purge.room}", watcher.server)
            if watcher.user == purge.user:
                for event_id in sorted(purge.stay - history):
                    yield Finding("purged too much", f"{event_id} of {purge.room}", watcher.server)


def nothing_is_left_to_adopt(ledger):
    """A resynchronisation of servers at rest finds nothing that one of them lacks."""
    for room, server, report in ledger.reports:
        missed = sum(asked.get("events_accepted", 0) for asked in report.get("servers", []))
        if report.get("status") == "active" or report.get("changed") or missed:
            yield Finding("resynchronised", f"{room} on {server}: {report}", server)


ALL = [upgrades_lead_on, who_is_entitled_comes_in, what_was_purged_stays_away, nothing_is_left_to_adopt]
