"""What devices have been sent at rest, and what servers tell of devices and profiles: waited for, for it comes by itself."""

import asyncio
import json
import time

from chaos.acts.devices import ALGORITHM, logins
from chaos.comparisons_of_devices import changes_of_devices_are_told, lists_of_devices_agree, messages_to_devices_come_once

SECONDS_MAX = 90
NO_ROOMS = json.dumps({"room": {"rooms": []}, "presence": {"types": []}})
SYNCS_MAX = 100


async def ask(play):
    since = {}
    await _until(play, lambda: _take_messages(play, since), messages_to_devices_come_once)
    await _until(play, lambda: _ask_for_lists(play), lists_of_devices_agree)
    await _until(play, lambda: asyncio.sleep(0), changes_of_devices_are_told)
    for user, token, device in logins(play):
        status, answer = await user.call("POST", "keys/upload", token=token)
        device.count = answer["one_time_key_counts"].get(ALGORITHM, 0) if status == 200 else None
    for host in play.world.hosts:
        asker = next(user for user in play.users if user.host is host)
        for user in play.users:
            status, shown = await asker.persist("GET", "profile/{userId}", user.id)
            play.ledger.shown.setdefault(host.name, {})[user.id] = shown if status == 200 else {}


async def _until(play, look, comparison):
    """Looks again and again until nothing is found, or time is up."""
    end = time.monotonic() + SECONDS_MAX
    await look()
    while any(comparison(play.ledger)) and time.monotonic() < end:
        await asyncio.sleep(1)
        await look()


async def _take_messages(play, since):
    """Further devices sync for what was sent to them alone."""
    for user, token, device in logins(play, others=True):
        for _ in range(SYNCS_MAX):
            query = {"timeout": 0, "filter": NO_ROOMS} | ({"since": since[token]} if token in since else {})
            status, answer = await user.call("GET", "sync", query=query, token=token)
            if status != 200:
                break
            since[token] = answer["next_batch"]
            events = answer.get("to_device", {}).get("events", [])
            device.messages += [event["content"].get("marker") for event in events]
            if not events:
                break


async def _ask_for_lists(play):
    for host in play.world.hosts:
        asker = next(user for user in play.users if user.host is host)
        status, answer = await asker.call("POST", "keys/query", body={"device_keys": {user.id: [] for user in play.users}})
        told = answer.get("device_keys", {}) if status == 200 else {}
        play.ledger.lists[host.name] = {
            user: {id: {key: value for key, value in keys.items() if key != "unsigned"} for id, keys in devices.items()}
            for user, devices in told.items()
        }
