"""`python -m bench.beside`: resuming here, and with npm's `resumable-stream` on Redis.

Both stand before the same simulator, and the same client asks them: how long until a
client that comes back has something, what is held for one that is away, and what
becomes of upstream when nobody wants the answer any more. Node, npm and the network are
needed, once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from bench.beside.packages import installed
from bench.processes import server
from bench.rows.row import quantile
from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.chat_stream import ChatRequest
from cancel_lab.clients.dial import dial
from cancel_lab.clients.http1 import HTTP1Stream
from cancel_lab.procfs import resident_bytes
from cancel_lab.upstream import Entry, Upstream, get, simulating
from tests.admission.valkey import running

SCRIPTS: Final = Path(__file__).parent
AWAY_S: Final = 3.0


@dataclass
class Side:
    """One of the two servers."""

    name: str
    port: int
    pid: int
    behind: str  # what the query says of where a client was

    async def begin(self, model: str, tokens: int) -> str:
        """Begin a stream and lose it; return the way back."""
        body = json.dumps({"prompt": "go", "model": model}).encode()
        head = {"Content-Type": "application/json", "X-Stream-Grace": "60"}
        request = ChatRequest(path="/chat", body=body, headers=head)
        stream = await dial(self.port, request, Transport.H1)
        await stream.start()
        await stream.read_tokens(tokens)
        way = stream.seen.headers["x-stream-resume"]
        await stream.act(Act.FIN)
        return way

    async def back(self, way: str) -> HTTP1Stream:
        """Come back behind nothing, and return the stream."""
        path = f"{way}&{self.behind}=0"
        request = ChatRequest(path=path, body=b"", method="GET")
        stream = await dial(self.port, request, Transport.H1)
        assert isinstance(stream, HTTP1Stream)
        return stream

    async def resume_ms(self, up: Upstream) -> float:
        """Return the time from a request to the first content that is replayed."""
        model = f"simulator/fast?chunks=400&delay_ms=5&size={up.tag()}"
        stream = await self.back(await self.begin(model, 5))
        asked_ns = await stream.start()
        await stream.read_tokens(1)
        stream.connection.fin()
        assert stream.seen.first_token_ns is not None
        return (stream.seen.first_token_ns - asked_ns) / 1e6

    async def away(self, up: Upstream) -> tuple[float, Entry, str]:
        """Lose a flood for some seconds: bytes held, upstream's entry, the way."""
        tag, since = up.tag(), await up.newest()
        before = resident_bytes(self.pid) or 0
        way = await self.begin(f"simulator/flood?size={tag}", 1)
        await trio.sleep(AWAY_S)
        entry = await up.look(tag, since=since)
        assert entry is not None
        return (resident_bytes(self.pid) or 0) - before, entry, way


@contextmanager
def theirs(up: Upstream, redis_url: str) -> Iterator[Side]:
    """Run the Node server, whose packages are installed once a machine."""
    names = ("package.json", "resumable_stream.mjs")
    folder = installed({name: (SCRIPTS / name).read_text() for name in names})
    with subprocess.Popen(
        ["node", "resumable_stream.mjs", up.base_url],
        cwd=folder,
        env={**os.environ, "REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Side("resumable-stream", port, process.pid, "skip")
        finally:
            process.kill()


async def compare(trials: int) -> None:
    """Measure both and print it."""
    async with simulating() as up:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = {"OPENROUTER_BASE_URL": up.base_url, "LOG_LEVEL": "WARNING"}
            port, process = stack.enter_context(server(folder / "log", **settings))
            redis = stack.enter_context(running("valkey"))
            sides = (
                Side("ours", port, process.pid, "after"),
                stack.enter_context(theirs(up, redis.url)),
            )
            times: dict[str, list[float]] = {side.name: [] for side in sides}
            for _ in range(trials):
                for side in sides:
                    times[side.name].append(await side.resume_ms(up))
            for side in sides:
                p50, p99 = (quantile(times[side.name], q) for q in (0.5, 0.99))
                print(f"{side.name}: first replayed content p50 {p50:.2f} ms,")
                print(f"  p99 {p99:.2f} ms")
                held, entry, way = await side.away(up)
                print(
                    f"  a flood without a client for {AWAY_S:g} s: {held / 1e6:.1f} MB"
                )
                print(f"  more resident, {entry.bytes_sent / 1e6:.1f} MB sent upstream")
                asked_ns = time.monotonic_ns()
                if side.name == "ours":
                    stream_path = way.partition("/events")[0]
                    await get(side.port, stream_path, method="DELETE")
                await trio.sleep(AWAY_S)
                later = await up.look(_tag_of(entry), since=entry.number - 1)
                assert later is not None
                if later.client_gone_ns is None:
                    more = (later.bytes_sent - entry.bytes_sent) / 1e6
                    print(
                        f"  no cancel: upstream goes on, {more:.1f} MB in {AWAY_S:g} s"
                    )
                else:
                    after = (later.client_gone_ns - asked_ns) / 1e6
                    print(f"  a cancel: upstream's notice after {after:.2f} ms")


def _tag_of(entry: Entry) -> int:
    assert entry.model is not None
    return int(entry.model.partition("size=")[2])


def main() -> int:
    """Compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside")
    parser.add_argument("--trials", type=int, default=100)
    trio.run(compare, parser.parse_args().trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
