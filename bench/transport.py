"""What an upstream event and an upstream request cost: ours against stock httpx.

`python -m bench.transport [rounds]`. CPU seconds of this process only; upstream runs in
another one. Each figure is the least of some interleaved rounds, because the machine's
other work can only add. Read the ratios: microseconds belong to one machine.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio

from bench.transport_upstream import EVENT, Counter
from trio_ai_stream.upstream.transport import UpstreamTransport

STEP_EVENTS = 4_000
COALESCED_EVENTS = 40_000
REQUESTS = 200


@dataclass(frozen=True)
class Upstream:
    """Where the other process listens."""

    plain: str
    tls: str
    counter: Counter
    ssl_context: ssl.SSLContext


Read = Callable[[httpx.Response, Counter], Awaitable[int]]


async def _read_blocks(response: httpx.Response, counter: Counter) -> int:
    body = response.extensions["body"]
    taken = 0
    while block := await body.receive():
        taken += len(block)
        counter.set(taken // len(EVENT))
    return taken // len(EVENT)


async def _read_raw(response: httpx.Response, counter: Counter) -> int:
    taken = 0
    async for block in response.aiter_raw():
        taken += len(block)
        counter.set(taken // len(EVENT))
    return taken // len(EVENT)


async def _read_lines(response: httpx.Response, counter: Counter) -> int:
    events = 0
    async for line in response.aiter_lines():
        if line:
            events += 1
            counter.set(events)
    return events


async def _stream_cost(
    client: httpx.AsyncClient, url: str, read: Read, counter: Counter
) -> float:
    """CPU microseconds per event, connecting excluded."""
    counter.set(0)
    async with client.stream("GET", url) as response:
        started = time.process_time()
        events = await read(response, counter)
        return (time.process_time() - started) / events * 1e6


async def _request_cost(client: httpx.AsyncClient, url: str, *, new: bool) -> float:
    """CPU microseconds per small GET, on a kept or on a new connection."""
    headers = {"Connection": "close"} if new else {}
    await client.get(url, headers=headers)
    started = time.process_time()
    for _ in range(REQUESTS):
        (await client.get(url, headers=headers)).raise_for_status()
    return (time.process_time() - started) / REQUESTS * 1e6


Client = Callable[[], httpx.AsyncClient]


async def _measure(upstream: Upstream, rounds: int) -> dict[str, dict[str, float]]:
    """Return the least cost by row (what was done) and column (who did it)."""

    def ours() -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=UpstreamTransport(ssl_context=upstream.ssl_context), timeout=None
        )

    def stock() -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=upstream.ssl_context, timeout=None)

    ways: tuple[tuple[str, Client, Read], ...] = (
        ("receive", ours, _read_blocks),
        ("aiter_raw", ours, _read_raw),
        ("httpx lines", stock, _read_lines),
        ("httpx raw", stock, _read_raw),
    )
    best: dict[str, dict[str, float]] = {}

    def note(row: str, column: str, cost: float) -> None:
        columns = best.setdefault(row, {})
        columns[column] = min(cost, columns.get(column, cost))

    for _ in range(rounds):
        for scheme, base in (("http", upstream.plain), ("https", upstream.tls)):
            for column, make, read in ways:
                async with make() as client:
                    for kind, count in (
                        ("step", STEP_EVENTS),
                        ("coalesced", COALESCED_EVENTS),
                    ):
                        url = f"{base}/{kind}/{count}"
                        cost = await _stream_cost(client, url, read, upstream.counter)
                        note(f"{scheme} {kind}, us/event", column, cost)
            for column, make in (("receive", ours), ("httpx lines", stock)):
                async with make() as client:
                    for new in (False, True):
                        cost = await _request_cost(client, f"{base}/small", new=new)
                        kind = "new" if new else "reused"
                        note(f"{scheme} {kind}, us/request", column, cost)
    return best


@contextlib.contextmanager
def _upstream() -> Iterator[Upstream]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "counter").write_bytes(bytes(8))
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.transport_upstream", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            plain, tls = process.stdout.readline(), process.stdout.readline()
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            yield Upstream(
                f"http://127.0.0.1:{int(plain)}",
                f"https://127.0.0.1:{int(tls)}",
                Counter(folder / "counter"),
                context,
            )
        finally:
            process.terminate()
            process.wait()


def report(best: dict[str, dict[str, float]]) -> str:
    """Lay the costs out as a table; the ratio is httpx's usual way to ours."""
    columns = ("receive", "aiter_raw", "httpx lines", "httpx raw")
    lines = [f"{'':28}" + "".join(f"{column:>13}" for column in columns) + f"{'':>8}"]
    for row, costs in best.items():
        cells = "".join(
            f"{costs[column]:13.2f}" if column in costs else f"{'':>13}"
            for column in columns
        )
        lines.append(f"{row:28}{cells}{costs['httpx lines'] / costs['receive']:7.1f}x")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with _upstream() as upstream:
        print(report(trio.run(_measure, upstream, rounds)))


if __name__ == "__main__":
    main()
