"""`python -m bench.beside.durable`: Durable Streams' conformance tests, the read side.

Those tests create a stream, append to it and read it, over HTTP. Here a stream is an
answer of upstream's, and its reads have another form. So an adapter stands between: it
is upstream, for which an append is one more piece of the answer, and it asks the real
server for every read: `offset` becomes the id of an event. What the adapter knows by
itself is the content type, and how much has been appended. Node and npm are needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientConnectionResetError, ClientSession, ClientTimeout, web

from bench.beside.packages import installed
from bench.processes import server

PACKAGES: Final = {"@durable-streams/server-conformance-tests": "0.3.6"}
EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
RUNNER: Final = """
import { runConformanceTests } from "@durable-streams/server-conformance-tests";
runConformanceTests({ baseUrl: process.env.TESTED_URL });
"""
# The groups that read; what else is tested writes, forks, expires or describes.
READS: Final = (
    "Read Operations",
    "Offset Validation and Resumability",
    "Chunking and Large Payloads",
    "Read-Your-Writes Consistency",
    "SSE Mode",
    "Read Closed Streams (Catch-up)",
    "SSE with Stream Closure",
)
# What those groups ask for besides, and why there is none of it here.
ABSENT: Final = {
    "long-poll|longpoll": "no long poll: a reader stays",
    "JSON data in arrays|empty JSON array|embedded newlines safely": "an event is its"
    " API's own, no element of an array",
    "base64|binary|pagination": "an answer is text, and so are its events",
    "[cC]ursor": "no cursor: responses are not for caches",
}


@dataclass
class Appended:
    """One stream, as its writer knows it."""

    content_type: str
    way: str = ""
    tail: int = 1  # the id of the last event that there will be; `connected` has 1
    closed: bool = False
    pieces: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def append(self, text: str) -> None:
        """Have upstream say one more piece, if there is any."""
        if text:
            self.tail += 1
            self.pieces.put_nowait(text)

    @property
    def head(self) -> dict[str, str]:
        """The fields that say where its end is."""
        said = {"Stream-Next-Offset": f"{self.tail:015d}"}
        return said | ({"Stream-Closed": "true"} if self.closed else {})


class Adapter:
    """Durable Streams' protocol in front of our server, and upstream behind it."""

    def __init__(self) -> None:
        self.ours = ""
        self.streams: dict[str, Appended] = {}
        self.session: ClientSession | None = None

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/api/v1/chat/completions", self.answer)
        app.router.add_put("/v1/stream/{name:.*}", self.create)
        app.router.add_post("/v1/stream/{name:.*}", self.append)
        app.router.add_get("/v1/stream/{name:.*}", self.read)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Be upstream: what is appended is content."""
        name = (await request.json())["model"].removeprefix("durable/")
        stream = self.streams[name]
        response = web.StreamResponse(headers=EVENTS)
        with suppress(ConnectionError):  # its grace is over
            await self._say(request, response, stream)
        return response

    @staticmethod
    async def _say(
        request: web.Request, response: web.StreamResponse, stream: Appended
    ) -> None:
        await response.prepare(request)
        while (piece := await stream.pieces.get()) is not None:
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            chunk = json.dumps({"id": "gen-1", "choices": [choice]})
            await response.write(f"data: {chunk}\n\n".encode())
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunk = json.dumps({"id": "gen-1", "choices": [choice]})
        await response.write(f"data: {chunk}\n\ndata: [DONE]\n\n".encode())

    async def create(self, request: web.Request) -> web.Response:
        """Begin a stream and lose it: from now on it is read by coming back."""
        name = request.match_info["name"]
        if name in self.streams:
            return web.Response(headers=self.streams[name].head)
        stream = self.streams[name] = Appended(request.headers["Content-Type"])
        assert self.session is not None
        async with self.session.post(
            f"{self.ours}/chat",
            json={"prompt": "go", "model": f"durable/{name}"},
            headers={"X-Stream-Grace": "60"},
        ) as begun:
            await begun.content.readuntil(b"\n\n")
            stream.way = begun.headers["X-Stream-Resume"]
        return await self._take(stream, request, 201)

    async def append(self, request: web.Request) -> web.Response:
        """Let upstream go on, or end."""
        stream = self.streams[request.match_info["name"]]
        return await self._take(stream, request, 204)

    @staticmethod
    async def _take(
        stream: Appended, request: web.Request, status: int
    ) -> web.Response:
        try:
            stream.append(await request.text())
        except UnicodeDecodeError:
            return web.Response(status=415)
        if request.headers.get("Stream-Closed") == "true" and not stream.closed:
            stream.closed = True
            stream.pieces.put_nowait(None)
        return web.Response(status=status, headers=stream.head)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Have our server answer a read."""
        stream = self.streams.get(request.match_info["name"])
        if stream is None:
            return web.Response(status=404)
        offset = request.query.get("offset")
        live = request.query.get("live")
        if live is not None and offset is None:
            return web.Response(status=400)
        after = {None: "1", "-1": "1", "now": str(stream.tail)}.get(offset, offset)
        assert after is not None
        async with stream.reading:  # a second reader would take over from the first
            if live == "sse":
                response = web.StreamResponse(headers=EVENTS)
                with suppress(ClientConnectionResetError):  # it has seen enough
                    await self._live(request, response, stream, after)
                return response
            return await self._caught_up(stream, after)

    async def _caught_up(self, stream: Appended, after: str) -> web.Response:
        texts: list[str] = []

        async def keep(_number: int, text: str) -> None:
            texts.append(text)

        if not await self._each(stream, after, stream.tail, keep):
            return web.Response(status=400)
        body = "".join(texts)
        head = {"Content-Type": stream.content_type, "Stream-Up-To-Date": "true"}
        if after == str(stream.tail):
            head["Cache-Control"] = "no-store"
        return web.Response(text=None, body=body.encode(), headers=head | stream.head)

    async def _live(
        self,
        request: web.Request,
        response: web.StreamResponse,
        stream: Appended,
        after: str,
    ) -> None:
        await response.prepare(request)
        if int(after) == stream.tail and not stream.closed:
            await response.write(_control(stream, int(after)))

        async def tell(number: int, text: str) -> None:
            if text:
                lines = "".join(f"data:{line}\n" for line in _lines(text))
                await response.write(f"event: data\n{lines}\n".encode())
            await response.write(_control(stream, number))

        await self._each(stream, after, None, tell)

    async def _each(
        self,
        stream: Appended,
        after: str,
        until: int | None,
        take: Callable[[int, str], Awaitable[None]],
    ) -> bool:
        """Have each piece behind an id taken, as our server has them, with its id.

        Return whether the server knows what the id means.
        """
        number = int(after) if after.isdecimal() else -1
        if number == until:
            return True
        assert self.session is not None
        url = f"{self.ours}{stream.way}"
        query = {"after": after}
        async with self.session.get(url, params=query) as response:
            if response.status == 400:
                return False
            while block := await response.content.readuntil(b"\n\n"):
                lines = block.decode().split("\n")
                if not lines[0].startswith("id: "):
                    continue
                number = int(lines[0][4:])
                event = json.loads(lines[1].removeprefix("data: "))
                if event["type"] == "done":
                    await take(number - 1, "")
                    return True
                await take(number, event["content"])
                if number == until:
                    return True
        return True


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _control(stream: Appended, number: int) -> bytes:
    said: dict[str, Any] = {"streamNextOffset": f"{number:015d}", "streamCursor": "1"}
    if number == stream.tail:
        said["upToDate"] = True
        if stream.closed:
            del said["streamCursor"]
            said["streamClosed"] = True
    text = json.dumps(said, separators=(",", ":"))
    return f"event: control\ndata: {text}\n\n".encode()


async def run_tests(log: Path) -> dict[str, Any]:
    """Run the groups that read; return vitest's report."""
    adapter = Adapter()
    runner = web.AppRunner(adapter.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    package = {"type": "module", "dependencies": PACKAGES}
    files = {"package.json": json.dumps(package), "reads.test.mjs": RUNNER}
    folder = installed(files)
    settings = {"OPENROUTER_BASE_URL": f"http://127.0.0.1:{port}/api/v1"}
    timeout = ClientTimeout(total=None)
    with server(log, **settings) as (ours, _):
        adapter.ours = f"http://127.0.0.1:{ours}"
        async with ClientSession(timeout=timeout, read_bufsize=2**26) as session:
            adapter.session = session
            groups = "|".join(name.replace("(", r"\(") for name in READS)
            words = ["npx", "vitest", "run", "-t", groups.replace(")", r"\)")]
            process = await asyncio.create_subprocess_exec(
                *words,
                "--reporter=json",
                cwd=folder,
                env={**os.environ, "TESTED_URL": f"http://127.0.0.1:{port}"},
                stdout=subprocess.PIPE,
            )
            said, _ = await process.communicate()
    await runner.cleanup()
    report: dict[str, Any] = json.loads(said[said.index(b"{") :])
    return report


def main() -> int:
    """Print what passes, and what does not."""
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(run_tests(Path(folder) / "log"))
    tests = [
        test for file in report["testResults"] for test in file["assertionResults"]
    ]
    tests = [test for test in tests if test["status"] in {"passed", "failed"}]
    counts: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for test in tests:
        group, verdict = test["ancestorTitles"][-1], test["status"]
        if verdict == "failed":
            found = [
                why for what, why in ABSENT.items() if re.search(what, test["title"])
            ]
            verdict = found[0] if found else verdict
        if verdict == "failed":
            wrong += 1
            first = test["failureMessages"][0].splitlines()[0]
            print(f"{group}: {test['title']}: {first[:150]}")
        counts[group, verdict] += 1
    for (group, verdict), count in sorted(counts.items()):
        print(f"{group}: {count} {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
