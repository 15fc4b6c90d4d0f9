"""Two Warrens and a Synapse, each reached by each of the others over a wire of its own, and requests to them."""

import asyncio
import json
import signal
from itertools import permutations

import httpx
from cryptography.hazmat.primitives.asymmetric import ed25519

from chaos.finding import Finding
from harness import federated
from harness.certificates import Authority
from harness.client import address
from harness.peer import Key, authorization, bytes_of
from harness.server import free_port
from harness.wire import Wire

# Lists of servers that a room lets in know no ports: one Warren goes by its address.
WARRENS = ["localhost", "127.0.0.1"]
# A server that was killed amid much work, and two that start beside it on two processors, take their time.
STOP_SECONDS_MAX = 90
# A join through servers that do not answer is given up by Warren and by Synapse before that.
ANSWER_SECONDS_MAX = 90
COMMAND_SECONDS_MAX = 120


class Host:
    """A server, and whether it is now up."""

    def __init__(self, index, server, ours):
        self.index, self.server, self.ours, self.up = index, server, ours, True
        # An administrator's access token, of Warrens.
        self.admin = None

    @property
    def name(self):
        return self.server.name


def _key_of(path):
    """The key in a file of Synapse's: algorithm, version and seed."""
    algorithm, version, seed = path.read_text().split()
    key = Key(version)
    key.id, key.private = f"{algorithm}:{version}", ed25519.Ed25519PrivateKey.from_private_bytes(bytes_of(seed))
    return key


class World:
    def __init__(self, folder, python, report):
        self.report, self.cut = report, set()
        # When servers began to run for the last time.
        self.restarted = {}
        # One server is down at a time: whoever finds all up may have to wait for another all the same.
        self.fault = asyncio.Lock()
        self.http = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))
        (folder / "authority").mkdir()
        authority = Authority(folder / "authority")
        synapse = federated.Synapse(folder / "synapse", authority, python)
        ports = [free_port(), free_port(), synapse.federation_port]
        self.wires = {pair: Wire(ports[pair[1]], free_port()) for pair in permutations(range(3), 2)}
        # Servers' certificates are not what is tested here.
        self.strangers = httpx.AsyncClient(trust_env=False, verify=False)
        self.synapse_key = _key_of(folder / "synapse" / "signing.key")
        # Servers are called as Synapse reaches them, for it takes a port from a name; Warrens are told where others are.
        names = [*(f"{WARRENS[index]}:{self.wires[2, index].port}" for index in range(2)), synapse.name]
        self.hosts = [Host(index, self._warren(folder, authority, index, names, ports), True) for index in range(2)]
        self.hosts.append(Host(2, synapse, False))

    def _warren(self, folder, authority, index, names, ports):
        others = [other for other in range(3) if other != index]
        rows = [f"{names[other]}={self.wires[index, other].address}" for other in others]
        options = [word for row in rows for word in ("--federation-resolve", row)]
        reached_at = self.wires[2, index].port
        data = folder / f"warren{index + 1}"
        host = WARRENS[index]
        return federated.Warren(data, authority, *options, host=host, federation_port=ports[index], reached_at=reached_at)

    async def start(self):
        passwords = [host.server.make_administrator("warden") for host in self.hosts if host.ours]
        await asyncio.gather(*(asyncio.to_thread(host.server.start) for host in self.hosts))
        for host, password in zip(self.hosts, passwords):
            identifier = {"type": "m.id.user", "user": "warden"}
            body = {"type": "m.login.password", "identifier": identifier, "password": password}
            status, answer = await self.request(host, "POST", address("login"), body=body)
            assert status == 200, answer
            host.admin = answer["access_token"]

    async def request(self, host, method, path, token=None, body=None, query=None, seconds=ANSWER_SECONDS_MAX):
        """Status and JSON of an answer; the status is 0 where there was none."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = host.server.base_url + path
        try:
            answer = await self.http.request(method, url, headers=headers, json=body, params=query, timeout=seconds)
            content = answer.json()
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            return 0, {"error": repr(error)}
        if answer.status_code == 500:
            self.report.note("500 by", host.name, method, path, content)
            if host.ours:
                self.report.found(Finding("500", f"{method} {path}: {content}", host.name))
        return answer.status_code, content

    async def ask_as_synapse(self, host, template, *values):
        """Status and text of what a server answers to Synapse, whose key signs the request."""
        synapse, path = self.hosts[2], address(template, *values)
        headers = {"Authorization": authorization("GET", path, synapse.name, host.name, self.synapse_key), "Host": host.name}
        url = f"https://127.0.0.1:{host.server.federation_port}{path}"
        answer = await self.strangers.get(url, headers=headers, timeout=ANSWER_SECONDS_MAX)
        return answer.status_code, answer.text

    # -- faults --------------------------------------------------------------------------------------------------

    def cut_wires(self, *pairs):
        for pair in pairs:
            self.wires[pair].cut()
            self.cut.add(pair)

    def mend_wires(self, *pairs):
        for pair in pairs:
            self.wires[pair].mend()
            self.cut.discard(pair)

    def part(self, one, other):
        self.cut_wires((one.index, other.index), (other.index, one.index))

    def join_again(self, one, other):
        self.mend_wires((one.index, other.index), (other.index, one.index))

    def all_up(self):
        return all(host.up for host in self.hosts)

    async def restart(self, host, seconds, kill):
        """Ends a server, killing it if it is a Warren and that is wanted, and starts it after a while."""
        async with self.fault:
            host.up = False
            if kill and host.ours:
                await asyncio.to_thread(host.server.kill)
            else:
                await self.stop(host)
            await asyncio.sleep(seconds)
            await self.start_again(host)

    async def start_again(self, host):
        await asyncio.to_thread(host.server.start)
        host.up, self.restarted[host.name] = True, self.report.now()

    async def stop(self, host):
        code = await asyncio.to_thread(host.server.stop, STOP_SECONDS_MAX)
        if host.ours and code != 0:
            self.report.found(Finding("exit", f"{host.name} ended with {code}", host.name))

    async def command(self, host, *words):
        """Runs a command of a Warren's while it is stopped."""
        async with self.fault:
            host.up = False
            await self.stop(host)
            options = ["--data-dir", str(host.server.data_dir), "--server-name", host.name]
            done = await asyncio.to_thread(host.server.command, *words, *options, seconds=COMMAND_SECONDS_MAX)
            if done.returncode != 0:
                self.report.found(Finding("command", f"{words}: {done.stderr[-500:]}", host.name))
            await self.start_again(host)

    async def pause(self, host, seconds):
        async with self.fault:
            host.up = False
            host.server.process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                host.server.process.send_signal(signal.SIGCONT)
                host.up = True

    async def end(self):
        """Stops all servers; what the Warrens leave behind must be sound."""
        await self.http.aclose()
        await self.strangers.aclose()
        for host in self.hosts:
            if host.server.process and host.server.process.poll() is None:
                await self.stop(host)
        for wire in self.wires.values():
            wire.close()
        for host in self.hosts[:2]:
            if "panicked at" in host.server.log():
                self.report.found(Finding("panic", str(host.server.log_path), host.name))
            try:
                await asyncio.to_thread(host.server.check)
            except AssertionError as error:
                self.report.found(Finding("check", str(error)[-2000:], host.name))
