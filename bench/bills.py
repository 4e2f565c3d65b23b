"""`python -m bench.bills truth|budget|cost`: are the bills true, and what do they cost.

    uv run python -m bench.bills truth --streams 5000   # ledger = the simulator's bills
    uv run python -m bench.bills budget                 # of two hosts on one Valkey
    uv run python -m bench.bills cost                   # the ledger on against off

Real processes on loopback. `truth` kills the server, all its workers, in mid-run and
starts it again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from bench.load import Load, Target
from bench.processes import (
    Process,
    _await_listening,
    gateway,
    upstream,
)
from bench.rows.relay import Relay
from cancel_lab.placement import on_server_cores
from cancel_lab.process import free_port
from trio_ai_stream.billing.usage_database import NANO, UsageDatabase

AT_A_TIME: Final = 100
SETTLED_S: Final = 20
BOUNDS: Final = {  # of `cost`, as a share of what it is without a ledger
    "first content": 1.02,
    "CPU to first content": 1.02,
    "CPU of a lone stream": math.inf,
    "CPU of an event": 1.01,
}
STATED: Final = 0.3  # docs/billing.md: what 95 % of estimates are within
# Whole answers, providers that go on, late bills, none ever, ends of upstream's own.
MODELS: Final = (
    "fast?chunks={n}",
    "fast?chunks={n}&delay_ms=3",
    "fast?chunks={n}&delay_ms=3&reasoning=9",
    "fast?chunks={n}&delay_ms=3&bill_ms={ms}",
    "fast?chunks={n}&delay_ms=3&bill_more={n}&provider=Groq",
    "fast?chunks={n}&delay_ms=3&bill=never",
    "fast?chunks={n}&delay_ms=3&generation_header=0",
    "drop",
    "reset",
    "truncated",
    "error",
    "no-done",
    "refuse",
    "bad-request",
    "fast?chunks={n}&first_token_ms={ms}",
)


@contextmanager
def server(
    log: Path, apart: bool = False, /, **settings: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run our server, in a process group of its own.

    `apart` is for whoever is `watching`: the server has the other cores.
    """
    port = free_port()
    command = [sys.executable, "-m", "trio_ai_stream", "serve"]
    environment = {
        "UPSTREAM": "openrouter",
        "OPENROUTER_API_KEY": "bench",
        "RATE_LIMIT": "100000",
        "LOG_FORMAT": "json",
        "PORT": str(port),
        "RECONCILE_SECS": str(SETTLED_S),
        **settings,
    }
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            on_server_cores(command) if apart else command,
            env={**os.environ, **environment},
            stderr=stderr,
            start_new_session=True,
        )
    try:
        _await_listening(port, process)  # type: ignore[arg-type]
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def simulator() -> Iterator[str]:
    """Run the simulator; give its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "trio_ai_stream", "simulate", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _await_listening(port, process)  # type: ignore[arg-type]
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait(10)


def fetch(url: str, key: str = "none") -> Any:
    """Return a JSON document."""
    headers = {"Authorization": f"Bearer {key}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as found:
        return json.load(found)


async def visit(
    port: int, name: str, model: str, leaves_s: float, *, key: str = ""
) -> tuple[int, bool]:
    """Ask for one stream and leave after a while; return the status, and if done."""
    body = json.dumps({"prompt": f"tell me about {name}", "model": model}).encode()
    head = (
        f"POST /chat HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {name}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n{f'Authorization: Bearer {key}' if key else 'X-No: key'}"
        "\r\n\r\n"
    ).encode()
    start, got = b"", b""
    with suppress(OSError, trio.BrokenResourceError):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            with trio.move_on_after(leaves_s):
                await stream.send_all(head + body)
                while data := await stream.receive_some(65536):
                    start, got = (start + data)[:12], (got + data)[-4096:]
                return _status(start), b'"type":"done"' in got
            if random.random() < 0.5:
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(trio.socket.SOL_SOCKET, 13, linger)
        finally:
            await trio.aclose_forcefully(stream)
    return _status(start), False


def _status(start: bytes) -> int:
    return int(start[9:12]) if len(start) == 12 else 0


class Crowd:
    """Clients that ask for random models and leave at random."""

    def __init__(self, seed: int, streams: int) -> None:
        self.random = random.Random(seed)
        self.names = iter(range(streams))
        self.done: set[str] = set()
        self.asked = 0

    async def run(self, port: int, at_most: int) -> None:
        """Ask for so many more streams."""
        self.left = at_most
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(self._client, port)

    async def _client(self, port: int) -> None:
        while self.left > 0:
            self.left -= 1
            name = f"s-{next(self.names):05d}"
            self.asked += 1
            model = self.random.choice(MODELS).format(
                n=self.random.choice((10, 60, 140)), ms=self.random.choice((200, 900))
            )
            leaves_s = self.random.choice((0.1, 0.5, 1.5, 30.0))
            leaves_s *= self.random.uniform(0.1, 1.5)
            _, done = await visit(port, name, f"simulator/{model}", leaves_s)
            if done:
                self.done.add(name)


def truth(streams: int, seed: int) -> bool:
    """Compare the ledger with the simulator's own bills, over a kill -9."""
    folder = Path(tempfile.mkdtemp(prefix="bills-"))
    log, ledger = folder / "log", folder / "ledger.db"
    crowd = Crowd(seed, streams)
    began = time.monotonic()
    with simulator() as base_url:
        settings = {
            "OPENROUTER_BASE_URL": base_url,
            "LEDGER_FILE": str(ledger),
            "WORKERS": "2",
        }
        with server(log, **settings) as (port, process):
            trio.run(_kill_in_mid_run, crowd, port, streams // 2, process)
        with server(log, **settings) as (port, _process):
            trio.run(crowd.run, port, streams - crowd.asked)
            _wait_until_settled(ledger)
        bills = {
            entry["id"]: entry["bill"]
            for entry in fetch(f"{base_url}/stats")["requests"]
            if entry["bill"] is not None
        }
    return _compare(crowd, log, ledger, bills, time.monotonic() - began)


async def _kill_in_mid_run(
    crowd: Crowd, port: int, streams: int, process: subprocess.Popen[bytes]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.run, port, streams)
        while crowd.asked < 0.8 * streams:  # noqa: ASYNC110
            await trio.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        crowd.left = 0


def _wait_until_settled(ledger: Path) -> None:
    """Wait until no bill is open, or twice as long as one may be."""
    for _ in range(2 * SETTLED_S + 10):
        time.sleep(1)
        if not [row for row in rows_of(ledger) if row["open"]]:
            return


def rows_of(ledger: Path) -> list[dict[str, Any]]:
    """Return all rows."""
    database = UsageDatabase(ledger)
    cursor = database._db.execute("SELECT * FROM streams")
    names = [column[0] for column in cursor.description]
    found = [dict(zip(names, values, strict=True)) for values in cursor]
    database.close()
    return found


def _compare(
    crowd: Crowd, log: Path, ledger: Path, bills: dict[str, Any], took_s: float
) -> bool:
    rows = rows_of(ledger)
    counted = Counter(row["request_id"] for row in rows)
    logged = {
        record["request_id"]
        for record in map(_record, log.read_text().splitlines())
        if record.get("event") == "stream_ended"
    }
    told = [row for row in rows if row["usage"] in {"exact", "reconciled"}]
    wrong = [row for row in told if not _agrees(row, bills)]
    mine = Counter(row["usage"] for row in rows)
    guesses = [row for row in rows if row["usage"] == "estimated"]
    # A bill that never comes is the simulator's all the same.
    pairs = [
        (row["completion_tokens"], bills[row["generation_id"]]["completion_tokens"])
        for row in guesses
        if row["generation_id"] in bills
    ]
    error = sum(a for a, _ in pairs) / max(1, sum(b for _, b in pairs)) - 1
    longer = [abs(a - b) / b for a, b in pairs if b > 50]
    near = sum(one <= STATED for one in longer)
    print(f"{crowd.asked} streams asked for, {len(rows)} rows, {took_s:.0f} s")
    print(f"usage: {dict(mine)}; outcomes: {dict(Counter(r['outcome'] for r in rows))}")
    print(
        f"ended in the log: {len(logged)}, not in the ledger:"
        f" {len(logged - set(counted))}"
    )
    print(
        f"done at the client: {len(crowd.done)}, not in the ledger: "
        f"{len(crowd.done - set(counted))}"
    )
    print(f"rows twice: {sum(n > 1 for n in counted.values())}")
    for name in ("prompt_tokens", "completion_tokens"):
        ours = sum(row[name] for row in told)
        theirs = sum(bills[row["generation_id"]][name] for row in told)
        print(f"{name}: ledger {ours}, simulator {theirs}")
    cost = sum(row["cost_nusd"] for row in told)
    theirs = sum(round(bills[row["generation_id"]]["cost"] * NANO) for row in told)
    print(f"cost: ledger {cost / NANO:.9f}, simulator {theirs / NANO:.9f} USD")
    print(
        f"rows that do not agree: {len(wrong)}; estimates with a bill: {len(pairs)},"
        f" together off by {100 * error:+.1f} %; above 50 tokens {len(longer)},"
        f" {near} of them within {100 * STATED:.0f} %"
    )
    lost = (logged | crowd.done) - set(counted)
    far = near < 0.95 * len(longer)
    return not (wrong or lost or max(counted.values()) > 1 or cost != theirs or far)


def _record(line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return found


def _agrees(row: dict[str, Any], bills: dict[str, Any]) -> bool:
    bill = bills.get(row["generation_id"])
    return bill is not None and (
        row["prompt_tokens"] == bill["prompt_tokens"]
        and row["completion_tokens"] == bill["completion_tokens"]
        and row["cost_nusd"] == round(bill["cost"] * NANO)
    )


def budget(usd: float) -> bool:
    """Let a crowd at two hosts of two workers spend one key's budget."""
    from tests.admission.valkey import running

    folder = Path(tempfile.mkdtemp(prefix="bills-"))
    streams = 10
    keys = folder / "keys.toml"
    keys.write_text(
        f'[[key]]\nname = "crowd"\nkey = "crowd-key"\nusd_per_day = {usd}\n'
        f"streams = {streams}\nrequests_per_second = 100000\n"
    )
    with ExitStack() as stack:
        valkey = stack.enter_context(running("valkey"))
        base_url = stack.enter_context(simulator())
        ports = [
            stack.enter_context(
                server(
                    folder / f"log-{host}",
                    OPENROUTER_BASE_URL=base_url,
                    LEDGER_FILE=str(folder / f"ledger-{host}.db"),
                    REDIS_URL=valkey.url,
                    KEYS_FILE=str(keys),
                    WORKERS="2",
                    # A busy machine must not count as a lost Valkey.
                    REDIS_TIMEOUT_SECS="5",
                )
            )[0]
            for host in "ab"
        ]
        statuses = trio.run(_spend, ports)
        time.sleep(3)
        stats = fetch(f"{base_url}/stats")["requests"]
        said = [
            fetch(f"http://127.0.0.1:{port}/usage?by=key", "crowd-key")["rows"]
            for port in ports
        ]
    spent = [entry["bill"]["cost"] for entry in stats if entry["bill"]]
    bound = usd + streams * max(spent)
    print(f"statuses: {dict(statuses)}")
    print(
        f"budget {usd}, spent {sum(spent):.6f} by {len(spent)} streams, the dearest"
        f" {max(spent):.6f}; bound {bound:.6f} USD"
    )
    told = [round(rows[0]["cost_usd"], 9) for rows in said]
    print(f"/usage of the hosts: {told} USD")
    # Who left before upstream answered was billed its prompt, which is estimated.
    agree = told[0] == told[1] and abs(told[0] / sum(spent) - 1) < 0.02
    return usd <= sum(spent) <= bound and statuses[402] > 0 and agree


async def _spend(ports: list[int]) -> Counter[int]:
    statuses: Counter[int] = Counter()
    model = "simulator/fast?chunks=60&delay_ms=3"

    async def client(number: int) -> None:
        for turn in range(10_000):
            port = ports[(number + turn) % len(ports)]
            leaves_s = 0.1 if (number + turn) % 3 == 0 else 30.0
            name = f"b-{number}-{turn}"
            status, _ = await visit(port, name, model, leaves_s, key="crowd-key")
            statuses[status] += 1
            if status == 402:
                return

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(client, number)
    return statuses


def cost(sessions: int) -> bool:
    """Measure first content and relay with the ledger on and off, in turns.

    The machine need not be quiet: what is compared was measured side by side, stream by
    stream or in rounds of a fraction of a second, and mostly by CPU time of the server.
    Two processes of the same program differ by some per cent for as long as they live,
    so each session starts both anew, and its median ratios count as one.
    """
    folder = Path(tempfile.mkdtemp(prefix="bills-"))

    def settings_of(number: int) -> list[dict[str, str]]:
        return [{"LEDGER_FILE": str(folder / f"ledger-{number}.db")}, {}]

    return compare(sessions, settings_of, BOUNDS)


def compare(
    sessions: int,
    settings_of: Callable[[int], list[dict[str, str]]],
    bounds: Mapping[str, float],
) -> bool:
    """Print what the first of two servers costs as a share of the second; see `cost`.

    Return whether each share is within its bound.
    """
    ratios: dict[str, list[float]] = {name: [] for name in bounds}
    with upstream() as source:
        for number in range(sessions):
            settings = settings_of(number)
            order = (0, 1) if number % 2 else (1, 0)
            with ExitStack() as stack:
                begun = {
                    who: stack.enter_context(
                        gateway("ours", source, **settings[who])  # type: ignore[arg-type]
                    )
                    for who in order
                }
                found = _compare_costs([begun[0], begun[1]])
            for name, pairs in found.items():
                ratios[name].append(statistics.median(on / off for on, off in pairs))
    held = True
    for name, medians in ratios.items():
        low, middle, high = mean_of(medians)
        print(
            f"{name}: {middle:.4f} (95 %: {low:.4f} to {high:.4f}),"
            f" {len(medians)} sessions"
        )
        held = held and middle <= bounds[name]
    return held


def _compare_costs(
    both: list[tuple[Process, Target]],
) -> dict[str, list[tuple[float, float]]]:
    """Return pairs of what something costs with a ledger and without, by its name."""
    relay = Relay(streams=8)
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in BOUNDS}
    clocks = [process_clock(process.process.pid) for process, _ in both]

    def lone(who: int) -> tuple[float, float, float]:
        """Take one stream; return time and CPU to first content, and CPU of all."""
        before = time.clock_gettime(clocks[who])
        with Load(both[who][1]) as load:
            begun = load.begin(1, "bench/2/15")
            load.read_to_begin(begun, at_most_s=10)
            load.read_for(0.005)  # the clock is behind while the server runs
            first = time.clock_gettime(clocks[who])
            load.read_to_end(at_most_s=10)
            load.read_for(0.005)
        (first_s,) = load.first_s
        last = time.clock_gettime(clocks[who])
        return first_s, first - before, last - before

    for who, (process, target) in enumerate(both):
        relay.run(target, process, events=20)
        for _ in range(50):
            lone(who)
    drawn = random.Random()  # whoever comes second, or after a relay, is not alike
    for number in range(80):
        order = drawn.sample((0, 1), 2)
        lones = {who: lone(who) for who in order}
        for name, *pair in zip(BOUNDS, lones[0], lones[1], strict=False):
            pairs[name].append((pair[0], pair[1]))
        if number % 6 == 0:
            used = [0.0, 0.0]
            for who in drawn.sample((0, 1), 2):
                before = time.clock_gettime(clocks[who])
                relay.run(both[who][1], None, events=2000)
                used[who] = time.clock_gettime(clocks[who]) - before
            pairs["CPU of an event"].append((used[0], used[1]))
    return pairs


def process_clock(pid: int) -> int:
    """Return the clock of a process's CPU time, all of its threads in it (Linux)."""
    return (~pid << 3) | 2


def mean_of(values: list[float]) -> tuple[float, float, float]:
    """Return the mean, and between what it is with 95 % (bootstrap)."""
    drawn = random.Random(1)
    means = sorted(
        statistics.mean(drawn.choices(values, k=len(values))) for _ in range(1000)
    )
    return means[25], statistics.mean(values), means[974]


def main() -> int:
    """Run one show; the exit status says whether it holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.bills", description=__doc__)
    parser.add_argument("show", choices=("truth", "budget", "cost"))
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--usd", type=float, default=0.05)
    parser.add_argument("--sessions", type=int, default=20)
    options = parser.parse_args()
    if options.show == "truth":
        holds = truth(options.streams, options.seed)
    elif options.show == "budget":
        holds = budget(options.usd)
    else:
        holds = cost(options.sessions)
    print("holds" if holds else "does not hold")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
