"""The path of a `POST /chat` is the one that docs/architecture.md shows, and short."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from scripts.docs import ROOT
from tests.support.server.client import Client
from trio_ai_stream.app_factory import create_app, server_limits
from trio_ai_stream.server.serving import Server
from trio_ai_stream.settings import load_settings
from trio_ai_stream.telemetry.logs import configure_logging

SOURCE: Final = ROOT / "src" / "trio_ai_stream"
DOCUMENT: Final = (ROOT / "docs" / "architecture.md").read_text()
# Not of the request: upstream's side, and what measures the loop.
OTHERS: Final = ("simulator/", "telemetry/sampling.py")
ROW: Final = re.compile(r"^\| \d+ \| `([\w/]+\.py):([\w.]+)` \|", re.MULTILINE)
FILES: Final = re.compile(r"passes at most (\d+) of our files")
EVENT: Final = re.compile(r"at most (\d+) calls of our functions, in at\smost (\d+)")

Place = tuple[str, str]


def request(chunks: int) -> bytes:
    """A request whose answer has so many events, each alone."""
    model = f"simulator/fast?chunks={chunks}&delay_ms=20"
    body = json.dumps({"prompt": "hi", "model": model}).encode()
    head = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


@contextmanager
def tracing(calls: list[Place]) -> Iterator[None]:
    """Note each call of our functions; going on with a coroutine is none."""
    frames = set()  # kept, so that no two have one identity

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(SOURCE)):
            return
        file = Path(code.co_filename).relative_to(SOURCE).as_posix()
        if not file.startswith(OTHERS) and frame not in frames:
            frames.add(frame)
            calls.append((file, code.co_qualname.replace(".<locals>", "")))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


async def ask(port: int, chunks: int) -> None:
    """Read one answer whole."""
    async with await Client.connect(port) as client:
        await client.say(request(chunks))
        answer = await client.read_to_end()
        assert answer.count(b'"type":"content"') == chunks
        assert b'"type":"done"' in answer


async def traced(*sizes: int, **env: str) -> list[list[Place]]:
    """Serve an answer of each size, on a server that is warm; return what was called.

    Loopback, the real server with its log, and the simulator behind a real socket.
    """
    configure_logging("INFO", "json", io.StringIO())
    settings = load_settings({"UPSTREAM": "simulator", **env}, None)
    app = create_app(settings)
    config = Config()
    config.bind, config.worker_class = ["127.0.0.1:0"], "trio"
    server = Server(server_limits(settings), app.services.registry)
    over = trio.Event()
    found: list[list[Place]] = []
    serve = partial(
        server.serve, wrap_app(app, 2**16, None), config, shutdown_trigger=over.wait
    )
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(serve)
        port = int(binds[0].rpartition(":")[2])
        await ask(port, 1)  # upstream's connection and all caches are made by this
        for size in sizes:
            found.append([])
            with tracing(found[-1]):
                await ask(port, size)
        over.set()
    return found


async def test_a_request_takes_the_path_that_is_shown() -> None:
    """The functions of the document's tables are called, in their order."""
    with trio.fail_after(30):
        (calls,) = await traced(3)
    shown: list[Place] = ROW.findall(DOCUMENT)
    assert len(shown) > 40
    rest = iter(calls)
    for place in shown:
        assert place in rest, f"{place} is not called, or not behind those before it"


async def test_the_path_is_as_short_as_it_is_said_to_be() -> None:
    """Files of a request, calls and files of one more event."""
    few, more = 3, 23
    with trio.fail_after(30):
        runs = await traced(few, few, few, more, more, more)
    shorts, longs = ([Counter(c) for c in half] for half in (runs[:3], runs[3:]))
    # A timer that is not of the request may fall into one of them.
    short = min(shorts, key=lambda calls: len({file for file, _ in calls}))
    files = {file for file, _ in short}
    said = FILES.search(DOCUMENT)
    assert said is not None
    assert len(files) <= int(said[1]), " ".join(sorted(files))
    # On a busy machine events arrive together, and then cost less.
    block = ("http/http_responses.py", "EventResponder.deliver")
    long = max(longs, key=lambda calls: calls[block])
    assert long[block] > short[block]
    # Once or more for each event, and not what falls into the longer run alone.
    events = more - few
    each = {place: (long[place] - short[place]) / events for place in long}
    added = {place: int(calls + 0.1) for place, calls in each.items() if calls >= 0.9}
    said = EVENT.search(DOCUMENT)
    assert said is not None
    assert sum(added.values()) <= int(said[1]), added
    assert len({file for file, _ in added}) <= int(said[2]), added


async def test_a_ledger_is_called_once_a_stream_at_its_end(tmp_path: Path) -> None:
    """So first content and relay cost what they do without, but for its thread."""
    with trio.fail_after(30):
        ledger = str(tmp_path / "ledger.db")
        (calls,) = await traced(23, LEDGER_FILE=ledger)
    end = calls.index(("stream/stream.py", "Stream.end"))
    for place in (
        ("billing/billing.py", "Billing.stream_ended"),
        ("billing/usage_database.py", "row_of"),
        ("billing/usage_ledger.py", "UsageLedger.put"),
        ("billing/usage_ledger.py", "Journal.append"),
    ):
        assert place not in calls[:end]
        assert calls[end:].count(place) == 1
