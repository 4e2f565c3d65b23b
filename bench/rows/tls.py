"""TLS to clients and to upstream: what it adds to a lone stream and to an idle one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme

from bench.figures import Figure
from bench.load import Target
from bench.processes import Process, gateway, upstream
from bench.rows.idle import IDLE_MODEL
from bench.rows.row import Rounds, alternating

KINDS = ("plain", "TLS to clients", "TLS to upstream")
GOAL = "at most 1.5 of plain"


class Reader:
    """One client connection, over TLS if there is a context; blocks."""

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        plain = socket.create_connection(("127.0.0.1", target.port), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = plain
        self._target = target
        if context is not None:
            self.sock = context.wrap_socket(plain, server_hostname="127.0.0.1")

    def first_content(self, model: str) -> float:
        """Ask, read to the first content, and return the seconds: no handshake."""
        asked_at = time.monotonic()
        self.sock.sendall(self._target.request(model))
        seen = b""
        while self._target.mark not in seen:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError(f"expected content, got {seen[:200]!r}")
            seen += data
        return time.monotonic() - asked_at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@dataclass(frozen=True)
class Tls(Rounds):
    """`streams` one after another, then `idle` at a time; plain, and over TLS.

    The handshakes are not counted: a client's is before its request, and upstream's
    connection is one that is kept.
    """

    streams: int = 100
    idle: int = 300
    warm_up: int = 20

    def measure(self) -> list[Figure]:
        """Return first content and memory, and both of plain's."""
        first = {kind: Figure(f"{kind}: first content", "ms") for kind in KINDS}
        held = {
            kind: Figure(f"{kind}: RSS per idle stream", "kB", digits=1)
            for kind in KINDS
        }
        ratios = {
            (name, kind): Figure(f"{kind}: {name} of plain", "", GOAL)
            for kind in KINDS[1:]
            for name in ("first content", "idle stream")
        }
        for number in range(self.rounds):
            seconds: dict[str, float] = {}
            kilobytes: dict[str, float] = {}
            for kind, started in alternating(number, _STARTS):
                with started() as found:  # afresh: freed memory would be used again
                    kilobytes[kind] = self._idle(found)
                    seconds[kind] = self._first(found)
            for kind in KINDS:
                first[kind].add("ours", 1000 * seconds[kind])
                held[kind].add("ours", kilobytes[kind])
            for kind in KINDS[1:]:
                for name, values in (
                    ("first content", seconds),
                    ("idle stream", kilobytes),
                ):
                    ratio = values[kind] / values["plain"]
                    ratios[name, kind].add("ours", ratio)
        return [*first.values(), *held.values(), *ratios.values()]

    def _first(self, found: Found) -> float:
        _, target, context = found
        times = []
        for _ in range(self.warm_up + self.streams):
            with Reader(target, context) as reader:
                times.append(reader.first_content("bench/1/0"))
        return statistics.median(times[self.warm_up :])

    def _idle(self, found: Found) -> float:
        process, target, context = found
        with contextlib.ExitStack() as stack:
            for _ in range(self.warm_up):
                reader = stack.enter_context(Reader(target, context))
                reader.first_content(IDLE_MODEL)
            before = process.resident
            for _ in range(self.idle):
                reader = stack.enter_context(Reader(target, context))
                reader.first_content(IDLE_MODEL)
            return (process.resident - before) / 1000 / self.idle


Found = tuple[Process, Target, ssl.SSLContext | None]
Start = Callable[[], contextlib.AbstractContextManager[Found]]


@contextlib.contextmanager
def _plain() -> Iterator[Found]:
    with upstream() as source, gateway("ours", source) as (process, target):
        yield process, target, None


@contextlib.contextmanager
def _to_clients() -> Iterator[Found]:
    with (
        _certificate() as (authority, pem),
        upstream() as source,
        gateway(
            "ours", source, TLS_CERT_FILE=str(pem), TLS_KEY_FILE=str(pem)
        ) as (process, target),
    ):  # fmt: skip
        yield process, target, ssl.create_default_context(cafile=str(authority))


@contextlib.contextmanager
def _to_upstream() -> Iterator[Found]:
    with (
        _certificate() as (authority, pem),
        upstream(certificate=pem) as source,
        gateway(
            "ours",
            source,
            OPENROUTER_BASE_URL=f"https://127.0.0.1:{source.port}/api/v1",
            SSL_CERT_FILE=str(authority),
        ) as (process, target),
    ):
        yield process, target, None


@contextlib.contextmanager
def _certificate() -> Iterator[tuple[Path, Path]]:
    """Make an authority and a certificate of this machine's; two files."""
    with tempfile.TemporaryDirectory() as folder:
        authority, pem = Path(folder) / "ca.pem", Path(folder) / "server.pem"
        made = trustme.CA()
        made.cert_pem.write_to_path(str(authority))
        made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(pem)
        )
        yield authority, pem


_STARTS: tuple[tuple[str, Start], ...] = (
    ("plain", _plain),
    ("TLS to clients", _to_clients),
    ("TLS to upstream", _to_upstream),
)
