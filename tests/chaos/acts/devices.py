"""Devices that come and go, their keys, and messages to them."""

import base64

from chaos.acts import act
from chaos.ledger import Claim, Message

# More would leave nothing to be said of rooms.
DEVICES_MAX = 4
ALGORITHM = "signed_curve25519"


def logins(play, others=False):
    """Users' devices that are there: user, access token, device. `others`: without the first ones, which sync all the time."""
    start = 1 if others else 0
    return [(user, *login) for user in play.users for login in user.logins[start:]]


@act(14)
async def message_devices(play, chance):
    user, other = chance.choice(play.users), chance.choice(play.users)
    marker, device = play.new_name("d"), chance.choice(["*", chance.choice(other.logins)[1].id])
    body = {"messages": {other.id: {device: {"marker": marker}}}}
    sent = Message(marker, user.id, other.id, device, play.report.now())
    # It may come before it is acknowledged.
    play.ledger.messages.append(sent)
    sent.met = await have_met(user, other)
    status, _ = await user.persist("PUT", "sendToDevice/{eventType}/{txnId}", "org.example.message", marker, body=body)
    sent.ended = play.report.now() if status == 200 else None
    sent.met = sent.met and await have_met(user, other)
    return str(user), str(other), device, marker, status


async def have_met(user, other):
    """Whether the user's server has somebody of the other's in one of the user's rooms."""
    if user.host is other.host or not user.host.ours:
        return True
    for room in [room for room, membership in user.watcher.membership.items() if membership == "join"]:
        status, answer = await user.call("GET", "rooms/{roomId}/joined_members", room)
        if status == 200 and any(member.endswith(f":{other.host.name}") for member in answer["joined"]):
            return True
    return False


@act(3)
async def log_in(play, chance):
    user = chance.choice(play.users)
    if len(user.logins) >= DEVICES_MAX or not (device := await user.log_in()):
        return str(user), "not logged in"
    play.ledger.devices.append(device)
    return str(user), device.id


@act(2)
async def log_out(play, chance):
    user, token, device = chance.choice(logins(play, others=True) or [(None, None, None)])
    if not device:
        return "nobody has another device"
    user.logins.remove((token, device))
    device.gone, began = True, play.report.now()
    status, _ = await user.persist("POST", "logout", token=token)
    # An answer that went lost is followed by one to nobody.
    device.sure = status in (200, 401)
    if device.sure and device.keys:
        play.ledger.changes.append((user.id, began))
    return str(user), device.id, status


def _random_key(chance, bytes=32):
    return base64.b64encode(chance.randbytes(bytes)).decode().rstrip("=")


def _signed(chance, device, **more):
    signatures = {device.user: {f"ed25519:{device.id}": _random_key(chance, 64)}}
    return {"key": _random_key(chance), "signatures": signatures, **more}


def _identity(chance, device):
    keys = {f"{kind}:{device.id}": _random_key(chance) for kind in ("curve25519", "ed25519")}
    signatures = {device.user: {f"ed25519:{device.id}": _random_key(chance, 64)}}
    algorithms = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]
    return {"user_id": device.user, "device_id": device.id, "algorithms": algorithms, "keys": keys, "signatures": signatures}


@act(14)
async def upload_keys(play, chance):
    """The first time identity keys, a few one-time keys every time, now and then another fallback key."""
    user, token, device = chance.choice(logins(play))
    one_time = {f"{ALGORITHM}:{play.new_name('k')}": _signed(chance, device) for _ in range(chance.randint(1, 4))}
    fallback = {f"{ALGORITHM}:{play.new_name('f')}": _signed(chance, device, fallback=True)} if chance.random() < 0.4 else {}
    body = {"one_time_keys": one_time, "fallback_keys": fallback}
    began, is_first = play.report.now(), device.keys is None
    if is_first:
        device.keys = body["device_keys"] = _identity(chance, device)
    # They may be given before they are acknowledged. Not again if no answer comes: they would come back after they were claimed.
    device.one_time |= one_time
    device.fallback |= fallback
    status, _ = await user.call("POST", "keys/upload", body=body, token=token)
    if status == 200:
        device.uploaded |= dict.fromkeys(one_time, play.report.now())
    device.sure = device.sure and status == 200
    if is_first and status == 200:
        play.ledger.changes.append((user.id, began))
    return str(user), device.id, list(one_time), list(fallback), status


@act(14)
async def claim_keys(play, chance):
    """Somebody claims keys of some devices of another user, one of each."""
    others = [other for other in play.users if any(device.keys for _, device in other.logins)]
    user, other = chance.choice(play.users), chance.choice(others or play.users)
    devices = [device for _, device in other.logins if device.keys]
    devices = chance.sample(devices, min(len(devices), chance.randint(1, 2)))
    if not devices:
        return "nobody has keys"
    body = {"one_time_keys": {other.id: {device.id: ALGORITHM for device in devices}}, "timeout": 10_000}
    began = play.report.now()
    status, answer = await user.call("POST", "keys/claim", body=body)
    found, ended = answer.get("one_time_keys", {}).get(other.id, {}) if status == 200 else {}, play.report.now()
    for device in devices:
        device.exact = device.exact and status == 200 and user.host is other.host
        play.ledger.claims += [Claim(device, *key, began, ended) for key in found.get(device.id, {}).items()]
    return str(user), str(other), {id: list(keys) for id, keys in found.items()}, status
