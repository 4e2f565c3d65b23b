"""Await sites: where the program can be suspended, and where it was.

A site is a line with `await`, `async for` or `async with` in the swept rooms. It counts
as covered when some act landed while a task of the request was suspended there, in any
frame. What no scenario reaches is listed, and each such place needs a reviewed reason.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from tests.sweep.labels import ROOT, SWEPT, Site, swept_file

_SUSPENDING: Final = (ast.Await, ast.AsyncFor, ast.AsyncWith)

# Places that no run in memory can reach: (file, function or "" for all), the reason.
UNREACHABLE: Final[dict[tuple[str, str], str]] = {
    (
        "upstream/transport/links.py",
        "TlsLink.handshake",
    ): "TLS needs a socket; the matrix runs it",
    ("upstream/transport/links.py", "TlsLink.flush"): "the same",
    ("stream/relay.py", "_Conversation._pass"): (
        "the wait for a heartbeat: upstream would have to speak while it is written"
    ),
    ("upstream/transport/links.py", "TlsLink._send_outgoing"): "the same",
    ("upstream/transport/dial.py", "Resolver.resolve"): "DNS runs in a thread",
    ("upstream/transport/dial.py", "Dialer.dial"): "DNS and TCP",
    ("upstream/transport/dial.py", "Dialer._secure"): "TLS",
    ("upstream/transport/dial.py", "_connect_first"): "real sockets",
    ("upstream/transport/dial.py", "_attempt"): "real sockets",
    ("upstream/transport/dial.py", "_connect_one"): "real sockets",
    ("upstream/transport/links.py", "SocketLink.flush"): "real sockets",
    ("upstream/transport/upstream_connection.py", "UpstreamConnection.exchange"): (
        "a request in one write needs a socket: a stream in memory takes an await"
    ),
    ("upstream/transport/links.py", "ClosedLink.wait"): (
        "only for a link that was closed meanwhile"
    ),
    (
        "upstream/transport/request_message.py",
        "RequestMessage.write",
    ): "no request of ours is chunked",
    (
        "upstream/transport/body.py",
        "TransportBody.receive",
    ): "only under httpx's read budget",
    (
        "upstream/transport/body.py",
        "TransportBody.__anext__",
    ): "for httpx's own readers",
    ("upstream/bodies.py", "_DecodedBody.receive"): "the simulator compresses nothing",
    ("upstream/bodies.py", "_DecodedBody.drain"): "the same",
    ("upstream/openrouter.py", "OpenRouter.get"): "no stream: upstream refuses a GET",
    ("admission/peers.py", ""): "workers' sockets",
    ("http/probes.py", ""): "no stream: a listener of its own, tests/e2e runs it",
    ("http/remote_streams.py", ""): "other workers' streams, over their sockets",
    ("http/streams.py", ""): "no stream: one short answer",
    ("http/models.py", ""): "no stream: the scenario `models` takes its longest way",
    ("http/live_view.py", ""): "no chat stream: `live` takes the usual way",
    ("http/application.py", ""): "no request is under way when start-up fails",
    ("admission/shared/shared_directory.py", ""): "no stream: one short answer",
    ("admission/shared/shared_gate.py", "Changes.run"): "no request: the log's timer",
    (
        "admission/shared/leases.py",
        "Leases._keep",
    ): "no request: the model test runs it",
    ("admission/shared/leases.py", "Leases._synchronise"): "the same",
    (
        "admission/shared/valkey_link.py",
        "ValkeyLink._ask",
    ): "if Valkey forgot the scripts",
    ("admission/shared/valkey_link.py", "ValkeyLink.publish"): "no stream: see the bus",
    ("http/responder.py", "ChatResponder.ended"): (
        "nothing is awaited between admission and the first write"
    ),
}


@dataclass(frozen=True, slots=True)
class AwaitSite:
    """One place in the source, with the function that it is in."""

    path: str
    line: int
    function: str

    @property
    def site(self) -> Site:
        """File and line."""
        return (self.path, self.line)

    @property
    def excuse(self) -> str | None:
        """Why no run in memory reaches it, if it was reviewed."""
        for (path, function), reason in UNREACHABLE.items():
            inside = self.path.startswith(path) and function in {"", self.function}
            if inside:
                return reason
        return None


def await_sites() -> list[AwaitSite]:
    """Return every await site of the swept rooms, in order of file and line."""
    found: set[AwaitSite] = set()
    root = Path(ROOT)
    for room in SWEPT:
        for path in sorted((root / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= set(_sites(tree, str(path.relative_to(root)), ""))
    return sorted(found, key=lambda one: one.site)


def _sites(node: ast.AST, path: str, function: str) -> Iterator[AwaitSite]:
    for child in ast.iter_child_nodes(node):
        name = function
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{function}.{child.name}" if function else child.name
        if isinstance(child, _SUSPENDING):
            yield AwaitSite(path, child.lineno, name)
        yield from _sites(child, path, name)


@contextlib.contextmanager
def executed_lines(into: set[Site]) -> Iterator[None]:
    """Collect the lines of the program that run meanwhile; slow, for surveys only."""
    before = sys.gettrace()

    def in_frame(frame: FrameType, event: str, _argument: Any) -> Any:
        path = swept_file(frame.f_code)
        if path is None:
            return None
        if event == "line":
            into.add((path, frame.f_lineno))
        return in_frame

    sys.settrace(in_frame)
    try:
        yield
    finally:
        sys.settrace(before)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Await sites by what became of them."""

    covered: list[AwaitSite]
    never_suspends: list[AwaitSite]  # ran, and no request waited there
    missed: list[AwaitSite]  # not run by any scenario, and no reason known
    excused: list[AwaitSite]


def classify(suspended: set[Site], executed: set[Site]) -> Coverage:
    """Sort all await sites of the program."""
    coverage = Coverage([], [], [], [])
    for one in await_sites():
        if one.site in suspended:
            coverage.covered.append(one)
        elif one.excuse is not None:
            coverage.excused.append(one)
        elif one.site in executed:
            coverage.never_suspends.append(one)
        else:
            coverage.missed.append(one)
    return coverage
