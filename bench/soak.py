"""`python -m bench.soak --streams N`: many streams with random endings, then a count.

Server, simulator and clients share one Trio run, so that everything can be counted:
tasks, descriptors (also those of upstream connections), permits and registry entries
must be after the run what they were after its warm-up. Memory's growth is reported. The
garbage collector is off meanwhile, and must find nothing afterwards.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from types import CellType
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from tests.support.server import frames as f
from tests.support.server.client import Client
from trio_ai_stream.app_factory import create_app, server_limits
from trio_ai_stream.http.application import Application
from trio_ai_stream.server.serving import Server
from trio_ai_stream.settings import load_settings
from trio_ai_stream.telemetry.logs import configure_logging

MODELS = ["fast", "fast", "drop", "truncated", "echo", "endless"]
ENDINGS = ["complete", "complete", "leave", "reset", "shut", "cancel"]
# What a request asks, and what comes of it besides a stream of `/chat`.
KINDS = ["chat", "chat", "chat", "completions", "document", "refused", "origin", "list"]
ORIGIN = "https://page.test"
WARM_UP = 200
_ENDED = re.compile(r"^trio_ai_stream_streams_total{.*} (.*)$", re.MULTILINE)
Fields = list[tuple[bytes, bytes]]
SETTINGS = {
    "UPSTREAM": "simulator",
    "ALLOW_ANONYMOUS": "true",  # whatever host a client names
    "CORS_ALLOW_ORIGINS": ORIGIN,
    "RATE_LIMIT": "1000000",
    "LOG_LEVEL": "ERROR",
    "STREAM_DEADLINE_SECS": "2",
    "WRITE_TIMEOUT_SECS": "5",
}


@dataclass(frozen=True)
class Counts:
    """What must come back to where it was; idle connections to upstream left out.

    Each of those has two descriptors and a task here, because its simulator is here.
    """

    tasks: int
    descriptors: int
    permits: int
    registered: int

    @classmethod
    def now(cls, app: Application) -> Counts:
        """Count."""
        upstream: Any = app.services.upstream
        idle = upstream._transport.statistics().idle
        return cls(
            trio.lowlevel.current_statistics().tasks_living - idle,
            len(os.listdir("/proc/self/fd")) - 2 * idle,
            app.services.gate.status().held,
            len(app.services.registry),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one soak and report."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--seed", type=int, default=1)
    return trio.run(_soak, parser.parse_args(argv))


async def _soak(arguments: argparse.Namespace) -> int:
    settings = load_settings(SETTINGS, None)
    configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
    app = create_app(settings)
    server = Server(server_limits(settings), app.services.registry)
    config = Config()
    config.bind, config.errorlog = ["127.0.0.1:0"], None
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        wrapped = wrap_app(cast("Any", app), 0, "asgi")
        serve = partial(server.serve, wrapped, config, shutdown_trigger=stop.wait)
        binds = await nursery.start(serve)
        port = int(binds[0].rpartition(":")[2])
        await _clients(port, arguments, range(arguments.warm_up))
        before, memory = await _settled(app, None), _rss_bytes()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        began = time.monotonic()
        endings = await _clients(port, arguments, range(arguments.streams))
        took_s = time.monotonic() - began
        after = await _settled(app, before)
        grown = _rss_bytes() - memory
        garbage = _garbage()
        gc.enable()
        ended = app.services.metrics.render()[1].decode()
        stop.set()
    print(f"{arguments.streams} streams in {took_s:.0f} s: {dict(endings)}")
    print(f"before {before}\nafter  {after}")
    print(f"memory grew by {grown / 1e6:.1f} MB; in cycles: {dict(garbage)}")
    answered = sum(map(float, _ENDED.findall(ended)))
    print(f"{answered:.0f} were streams, the warm-up's included")
    fair = answered > arguments.streams / 2
    return 0 if after == before and fair and not garbage else 1


async def _clients(
    port: int, arguments: argparse.Namespace, numbers: range
) -> Counter[str]:
    """Let the clients share the numbers; return how their streams ended."""
    endings: Counter[str] = Counter()
    todo = iter(numbers)
    async with trio.open_nursery() as nursery:
        for _ in range(arguments.clients):
            nursery.start_soon(_client, port, arguments.seed, todo, endings)
    return endings


async def _client(
    port: int, seed: int, numbers: Iterator[int], endings: Counter[str]
) -> None:
    for number in numbers:
        random = Random(seed * 1_000_003 + number)
        ending = random.choice(ENDINGS)
        async with await Client.connect(port) as client:
            with trio.move_on_after(10) as scope:
                await _stream(client, random, ending)
        endings["too slow" if scope.cancelled_caught else ending] += 1


async def _stream(client: Client, random: Random, ending: str) -> None:
    """Have one stream over HTTP/1.1 or h2c, and end it as told."""
    kind, model = random.choice(KINDS), f"simulator/{random.choice(MODELS)}"
    http2 = random.random() < 0.4
    await client.say((_h2_request if http2 else _h1_request)(*_asked(kind, model)))
    enough = random.randrange(1200) if ending != "complete" else sys.maxsize
    if http2:
        await client.frames_until(
            lambda seen: f.ended(seen, 1) or len(client.received) > enough
        )
    else:
        await client.read_until(lambda data: len(data) > enough)
    if ending == "reset":
        client.reset()
    elif ending == "shut" and not client.ended:
        await client.stream.send_eof()
        await client.read_to_end()
    elif ending == "cancel" and http2:
        await client.say(f.reset(1))


def _asked(kind: str, model: str) -> tuple[bytes, bytes, Fields, bytes]:
    """Return method, path, fields and body of a request."""
    fields: Fields = [(b"content-type", b"application/json")]
    if kind == "list":
        return b"GET", b"/streams", [], b""
    if kind in {"completions", "document"}:
        asked = {"messages": [{"role": "user", "content": "soak"}], "model": model}
        body = json.dumps({**asked, "stream": kind == "completions"})
        return b"POST", b"/v1/chat/completions", fields, body.encode()
    if kind == "origin":  # it goes through Quart
        fields.append((b"origin", ORIGIN.encode()))
    prompt = "" if kind == "refused" else "soak"
    return (
        b"POST",
        b"/chat",
        fields,
        json.dumps({"prompt": prompt, "model": model}).encode(),
    )


def _h1_request(method: bytes, path: bytes, fields: Fields, body: bytes) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return (
        b"%b %b HTTP/1.1\r\nHost: t\r\nConnection: close\r\n%b"
        b"Content-Length: %d\r\n\r\n%b" % (method, path, lines, len(body), body)
    )


def _h2_request(method: bytes, path: bytes, fields: Fields, body: bytes) -> bytes:
    head = f.request(1, path, method=method, extra=tuple(fields), end=False)
    return f.hello() + head + f.data(1, body, end=True)


def _garbage() -> Counter[str]:
    """Return what only the collector can free, by kind; werkzeug's cycle excepted.

    `StateMachineMatcher.match` makes one of eight small objects for each request that
    goes through Quart: the next pass frees them.
    """
    gc.collect()
    gc.set_debug(0)
    found = Counter(
        type(one).__qualname__
        for one in gc.garbage
        if not isinstance(one, CellType | set | tuple)
        and getattr(one, "__module__", "") != "werkzeug.routing.matcher"
    )
    gc.garbage.clear()
    return found


async def _settled(app: Application, wanted: Counts | None) -> Counts:
    """Return the counts once they are `wanted`, or no longer change."""
    counts = Counts.now(app)
    for _ in range(40):
        await trio.sleep(0.25)
        last, counts = counts, Counts.now(app)
        if counts == wanted or (wanted is None and counts == last):
            break
    return counts


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
