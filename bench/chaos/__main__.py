"""Faults at random against two hosts and one Valkey: `python -m bench.chaos`.

    uv run python -m bench.chaos --minutes 5
    uv run python -m bench.chaos --seed 17        # the faults of a run again

Clients of all tempers ask (normal ones, some that leave, some that stop reading,
floods) while workers and hosts are killed or stopped, hosts are cut off, descriptors
run out, nobody reads a log, and Valkey restarts or hangs. When all is quiet again
everything must add up: see `verdict.py`. Partitions need root, for network namespaces.
Exit status 1: something did not add up; the seed is printed first.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence

import coredis
import httpx
import trio

from bench.chaos.clients import TEMPERS, Sight, Temper, ask
from bench.chaos.faults import inflict, plan
from bench.chaos.hosts import PREFIX, WORKERS, Host, Valkey, places
from bench.chaos.verdict import Quiet, complaints

HOSTS = 2
MOST_SIGHTS = 200_000
QUIET_S = 40.0
PER_TEMPER = 3


class Chaos:
    """One run: `run` returns what did not add up."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.seconds = seconds
        self.faults = plan(seed, seconds, HOSTS)
        self.sights: list[Sight] = []
        self._dice = random.Random(seed)
        self._began = 0.0
        self._over = False

    async def run(self) -> list[str]:
        """Start all, let the faults happen, wait until all is quiet, and judge."""
        valkey = Valkey()
        with places(HOSTS) as where:
            hosts = [Host(place, valkey) for place in where]
            valkey.start()
            try:
                return await self._with(hosts, valkey)
            finally:
                self._over = True
                for host in hosts:
                    host.close()
                valkey.stop()

    async def _with(self, hosts: list[Host], valkey: Valkey) -> list[str]:
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(self._keep, host)
            await _until_ready(hosts)
            self._began = trio.current_time()
            async with trio.open_nursery() as clients:
                for number, host in enumerate(hosts):
                    for temper in TEMPERS * PER_TEMPER:
                        clients.start_soon(self._client, number, host, temper)
                await self._inflict_all(hosts, valkey)
            await _until_ready(hosts)
            quiet = await self._quiet(hosts, valkey)
            self._over = True
            for host in hosts:
                host.kill()
        for sight in self.sights:
            sight.began -= self._began
            sight.over -= self._began
        return complaints(hosts, self.sights, self.faults, quiet)

    async def _keep(self, host: Host) -> None:
        """Start a host, and again whenever it has died."""
        host.read.set()
        while not self._over:
            host.since = len(host.records)
            host.start()
            await host.log()

    async def _inflict_all(self, hosts: list[Host], valkey: Valkey) -> None:
        for fault in self.faults:
            await trio.sleep_until(self._began + fault.at_s)
            print(fault, flush=True)
            await inflict(fault, hosts, valkey)

    async def _client(self, number: int, host: Host, temper: Temper) -> None:
        """Ask again and again, for the time of the run."""
        dice = random.Random(self._dice.random())
        while trio.current_time() < self._began + self.seconds:
            async with trio.open_nursery() as nursery:
                for _ in range(8 if temper == "flood" else 1):
                    name = f"{temper}-{len(self.sights)}"
                    sight = Sight(name, number, temper, trio.current_time())
                    self.sights.append(sight)
                    nursery.start_soon(ask, host, sight, dice)
            if len(self.sights) > MOST_SIGHTS:
                return
            await trio.sleep(dice.uniform(0.05, 0.5))

    async def _quiet(self, hosts: list[Host], valkey: Valkey) -> Quiet:
        """Wait until nothing is left, or for `QUIET_S`; return what was seen last."""
        streams = clients = -1
        listed: list[str] = ["unknown"]
        url = f"redis://127.0.0.1:{valkey.port}"
        async with (
            httpx.AsyncClient(timeout=5) as http,
            coredis.Redis.from_url(url) as redis,
        ):
            with trio.move_on_after(QUIET_S):
                while streams or clients or listed:
                    await trio.sleep(0.2)
                    streams = await redis.hlen(f"{{{PREFIX}}}:streams")
                    clients = await redis.hlen(f"{{{PREFIX}}}:clients")
                    listed = await _listed(http, hosts)
            works = []
            for number, host in enumerate(hosts):
                sight = Sight(f"last-{number}", number, "normal", 0.0)
                await ask(host, sight, self._dice)
                works.append(sight.end or str(sight.status))
            await trio.sleep(1.5)  # the last records reach the log, and are read
            metrics = [(await http.get(f"{h.url}/metrics")).text for h in hosts]
        return Quiet(streams, clients, listed, metrics, works)


async def _listed(http: httpx.AsyncClient, hosts: list[Host]) -> list[str]:
    found = []
    for host in hosts:
        try:
            document = (await http.get(f"{host.url}/streams")).json()
        except (httpx.HTTPError, ValueError) as exc:
            return [f"{host.url}/streams: {type(exc).__name__}"]
        found += [str(entry["id"]) for entry in document["streams"]]
        if not document["complete"]:
            found.append(f"{host.url}/streams is not complete")
    return found


async def _until_ready(hosts: list[Host]) -> None:
    """Wait until all workers listen."""
    with trio.fail_after(120):
        for host in hosts:
            while len(host.workers()) < WORKERS or host.running < WORKERS:  # noqa: ASYNC110 - a process gives no signal
                await trio.sleep(0.1)


def report(chaos: Chaos, found: Sequence[str]) -> None:
    """Print what was asked, what came of it, and what did not add up."""
    ends: Counter[tuple[str, str]] = Counter(
        (one.temper, one.end or str(one.status or "no answer")) for one in chaos.sights
    )
    for (temper, end), count in sorted(ends.items()):
        print(f"{count:7} {temper}: {end}")
    for text in found[:50]:
        print(f"WRONG {text}")
    print(
        f"{len(chaos.sights)} requests, {len(chaos.faults)} faults, {len(found)} wrong"
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run once; return 1 if something did not add up."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="at most 600")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32)
    )
    arguments = parser.parse_args(words)
    print(f"seed {arguments.seed}", flush=True)
    chaos = Chaos(arguments.seed, min(arguments.minutes, 600) * 60)
    found = trio.run(chaos.run)
    report(chaos, found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
