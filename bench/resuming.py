"""`python -m bench.resuming latency|crowd|cost`: what coming back to a stream takes.

    uv run python -m bench.resuming latency --trials 100   # over each transport
    uv run python -m bench.resuming crowd --streams 2000   # all lost at once
    uv run python -m bench.resuming cost --sessions 60     # to who does not ask

Real processes on loopback; docs/resume.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

import trio_ai_stream
from bench.load import Target
from bench.processes import server, upstream
from bench.rows.first import First
from bench.rows.row import quantile
from bench.side_by_side import compare
from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.chat_stream import ChatRequest, ChatStream
from cancel_lab.clients.dial import dial
from cancel_lab.matrix.sites import certificate
from cancel_lab.placement import watching
from cancel_lab.procfs import resident_bytes
from cancel_lab.upstream import Upstream, simulating

TRANSPORTS: Final = (
    Transport.H1,
    Transport.H1_TLS,
    Transport.H2C,
    Transport.H2_TLS,
)
GRACE_S: Final = 0.2
# Streams that are begun, or lost, in one go.
BATCH: Final = 200
_FIRST: Final = "first, gone_at = stream.first_content_at, None"
_METRIC: Final = re.compile(r"^trio_ai_stream_(\w+) (\S+)$", re.MULTILINE)


def spread(name: str, values: Sequence[float]) -> str:
    """Return quantiles as one cell of a table."""
    p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
    return f"{name}: p50 {p50:.2f}, p99 {p99:.2f}, max {max(values):.2f} ms"


async def begin(
    port: int, transport: Transport, tag: int, grace_s: float
) -> ChatStream:
    """Begin a stream and read some of it."""
    model = f"simulator/fast?endless=1&delay_ms=5&size={tag}"
    head = {
        "Content-Type": "application/json",
        "X-Request-ID": str(tag),
        "X-Stream-Grace": f"{grace_s:g}",
    }
    body = json.dumps({"prompt": "go", "model": model}).encode()
    request = ChatRequest(path="/chat", body=body, headers=head)
    stream = await dial(port, request, transport)
    await stream.start()
    await stream.read_tokens(5)
    return stream


async def resumed_ms(up: Upstream, port: int, transport: Transport) -> float:
    """Return the time from a request that comes back to the first replayed content."""
    first = await begin(port, transport, up.tag(), 60)
    await first.act(Act.FIN)
    way = first.seen.headers["x-stream-resume"]
    back = await dial(port, ChatRequest(path=way, body=b"", method="GET"), transport)
    asked_ns = await back.start()
    await back.read_tokens(5)
    await back.act(Act.FIN)
    assert back.seen.first_token_ns is not None
    path = way.partition("/events")[0]
    ended = await dial(
        port, ChatRequest(path=path, body=b"", method="DELETE"), transport
    )
    await ended.start()
    await ended.read_to_end()
    ended.connection.close()
    return (back.seen.first_token_ns - asked_ns) / 1e6


async def noticed_ms(
    up: Upstream, port: int, transport: Transport, log: Path
) -> tuple[float, float]:
    """Return how late a grace ended, and how long upstream's notice took from there.

    A record counts the time without a reader up to the ending's decision. The second
    has in it also what the server took to notice the client's loss.
    """
    tag, since = up.tag(), await up.newest()
    stream = await begin(port, transport, tag, GRACE_S)
    lost_ns = await stream.act(Act.FIN)
    entry = await up.entry(tag, lambda one: one.client_gone_ns is not None, since=since)
    assert entry.client_gone_ns is not None
    detached_ms = _detached_ms(log, str(tag))
    late_ms = detached_ms - 1000 * GRACE_S
    return late_ms, (entry.client_gone_ns - lost_ns) / 1e6 - detached_ms


def _detached_ms(log: Path, request_id: str) -> float:
    gives_up_at = time.monotonic() + 10
    while time.monotonic() < gives_up_at:
        for line in log.read_text().splitlines():
            if '"stream_ended"' in line:
                record = json.loads(line)
                if record["request_id"] == request_id:
                    return float(record["detached_ms"])
        time.sleep(0.01)
    raise TimeoutError(f"no record of {request_id}")


async def _latency(trials: int, transports: Sequence[Transport]) -> list[str]:
    lines = []
    async with simulating() as up:
        with certificate() as (chain, key), ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            common = {"OPENROUTER_BASE_URL": up.base_url}
            secured = {"TLS_CERT_FILE": str(chain), "TLS_KEY_FILE": str(key)}
            ports: dict[bool, int] = {}
            for tls in {transport.tls for transport in transports}:
                settings = {**common, **secured} if tls else common
                ours = server(folder / f"{tls}.log", True, **settings)
                ports[tls], _ = stack.enter_context(ours)
            for transport in transports:
                port, log = ports[transport.tls], folder / f"{transport.tls}.log"
                resumed = [await resumed_ms(up, port, transport) for _ in range(trials)]
                ends = [
                    await noticed_ms(up, port, transport, log) for _ in range(trials)
                ]
                late, noticed = zip(*ends, strict=True)
                both = [sum(one) for one in ends]
                lines += [
                    f"{transport}: " + spread("first replayed content", resumed),
                    "  " + spread("the grace's end is late", late),
                    "  " + spread("upstream's notice of it", noticed),
                    "  " + spread("from the loss and the grace to it", both),
                ]
    return lines


def latency(arguments: argparse.Namespace) -> None:
    """Print both times over each transport."""
    transports = [Transport(name) for name in arguments.transports.split(",")]
    with watching():
        for line in trio.run(_latency, arguments.trials, transports):
            print(line)


class Crowd:
    """Streams with a grace that are begun, read to their first event, and lost."""

    def __init__(self, port: int, grace_s: float) -> None:
        self.port = port
        body = json.dumps({"prompt": "go", "model": "bench/100000/1000"}).encode()
        self._request = (
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\nX-Stream-Grace: %g\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (grace_s, len(body), body)
        )
        self.ways: list[str] = []

    def begin_and_lose(self, count: int) -> None:
        """Begin so many, and then close all of their connections."""
        with ExitStack() as stack:
            socks = [
                stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
                for _ in range(count)
            ]
            for sock in socks:
                sock.sendall(self._request)
            for sock in socks:
                head = b""
                while b"\n\n" not in head:
                    head += sock.recv(65_536)
                found = re.search(rb"x-stream-resume: (\S+)", head, re.IGNORECASE)
                assert found is not None, head
                self.ways.append(found[1].decode())


def _until(port: int, name: str, right: Callable[[float], bool]) -> float:
    """Return a metric once it is right; it is sampled a few times a second."""
    gives_up_at = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = dict(_METRIC.findall(answer.read().decode()))
        value = float(metrics.get(name, "nan"))
        if right(value):
            return value
        if time.monotonic() > gives_up_at:
            raise TimeoutError(f"{name} stays {value:g}")
        time.sleep(0.1)


def crowd(arguments: argparse.Namespace) -> None:
    """Print what many detached streams hold, cost others, and how they end."""
    count, grace_s = arguments.streams, arguments.grace_s
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream() as source,
        server(
            Path(folder) / "log",
            OPENROUTER_BASE_URL=f"http://127.0.0.1:{source.port}/api/v1",
            MAX_CONCURRENT_STREAMS="20000",
            RECONCILE_SECS="0",
        ) as (port, process),
    ):
        target = Target("ours", port)
        First.run(target, 50)
        alone = First.run(target, arguments.probes)
        before, lost = resident_bytes(process.pid) or 0, Crowd(port, grace_s)
        for start in range(0, count, BATCH):
            lost.begin_and_lose(min(BATCH, count - start))
        _until(port, "streams_detached", lambda value: value == count)
        held = (resident_bytes(process.pid) or 0) - before
        logged = _until(port, "grace_log_bytes", lambda value: value > 0)
        among = First.run(target, arguments.probes)
        _until(port, "streams_detached", lambda value: value == 0)
        lines = (Path(folder) / "log").read_text().splitlines()
    found = [json.loads(line) for line in lines if '"stream_ended"' in line]
    records = [record for record in found if record["outcome"] == "abandoned"]
    late = [record["detached_ms"] - 1000 * grace_s for record in records]
    print(f"{count} detached streams: {held / 1000 / count:.1f} kB RSS each,")
    print(f"  their logs {logged / 1000 / count:.2f} kB each")
    for name, times in (("alone", alone), (f"among {count} detached", among)):
        print(f"one more stream, {name}: first content {1000 * times[1]:.2f} ms")
    print(f"abandoned: {len(records)}; {spread('later than its time', late)}")


# What resuming adds to a stream that does not ask for it: the lines that are taken out,
# by file, and what stands there instead.
_ADDED: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "http/endpoint.py": (
        ("wanted = context.field(GRACE)\n", "wanted = None\n"),
        ("        if wanted is not None and asked.stream:\n", "        if False:\n"),
    ),
    "http/request.py": (
        ("    keeps_id: bool = False", "    # "),
        (
            "        if not self.keeps_id:\n            taken",
            "        if True:\n            taken",
        ),
    ),
    "stream/stream.py": (
        ("    resumes: int = 0\n", ""),
        ("    detached_at: float | None = None\n", ""),
        ("    detached_s: float = 0.0\n", ""),
        (" if self.detached_at is None else", " if True else"),
        ("resumes=self.resumes,", ""),
        ("detached_s=self.detached_s,", ""),
    ),
    "stream/registry.py": (
        ("first, gone_at = stream.first_content_at, stream.detached_at", _FIRST),
    ),
    "wire/record.py": (
        ("    resumes: int\n", "    resumes = 0\n"),
        ("    detached_s: float\n", "    detached_s = 0.0\n"),
    ),
    "telemetry/logs.py": (
        ("    if record.resumes or record.detached_s:\n", "    if False:\n"),
    ),
}


def without_resuming(folder: Path) -> Path:
    """Copy `src` into a folder, without those lines."""
    copy = folder / "src"
    shutil.copytree(Path(trio_ai_stream.__file__).parent, copy / "trio_ai_stream")
    for name, edits in _ADDED.items():
        path = copy / "trio_ai_stream" / name
        text = path.read_text()
        for old, new in edits:
            assert old in text, f"{name}: expected {old!r} in it"
            text = text.replace(old, new)
        path.write_text(text)
    return copy


def cost(arguments: argparse.Namespace) -> None:
    """Print what a stream without a grace costs, as a share of a server without any."""
    bounds = {"first content": 1.01, "CPU to first content": 1.01}
    bounds |= {"CPU of a lone stream": math.inf, "CPU of an event": 1.01}
    with tempfile.TemporaryDirectory() as folder:
        without = {"PYTHONPATH": str(without_resuming(Path(folder)))}
        held = compare(arguments.sessions, lambda _number: [{}, without], bounds)
    print("holds" if held else "does not hold")


def main() -> int:
    """Measure what is named and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.resuming")
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("latency", help=latency.__doc__)
    one.add_argument("--trials", type=int, default=100)
    one.add_argument("--transports", default=",".join(TRANSPORTS))
    one.set_defaults(run=latency)
    one = kinds.add_parser("crowd", help=crowd.__doc__)
    one.add_argument("--streams", type=int, default=2000)
    one.add_argument("--grace-s", type=float, default=20.0)
    one.add_argument("--probes", type=int, default=300)
    one.set_defaults(run=crowd)
    one = kinds.add_parser("cost", help=cost.__doc__)
    one.add_argument("--sessions", type=int, default=100)
    one.set_defaults(run=cost)
    arguments = parser.parse_args()
    arguments.run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
