"""The schedule of an answer that is an error before the stream, or no answer at all.

Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from trio_ai_stream.simulator.errors import PIECE, error_body, error_json
from trio_ai_stream.simulator.faults import Faults
from trio_ai_stream.simulator.steps import End, Head, Pause, Phase, Step, Write

JSON = ("Content-Type", "application/json")
ENDLESS_GAP_S = 0.01  # between the pieces of a body without end: 400 kB a second


def refuse_script(faults: Faults) -> Iterator[Step]:
    """Yield the steps of a connection that ends instead of answering."""
    yield Pause(faults.headers_ms / 1000)
    yield End.FIN if faults.refuse == "drop" else End.RST


def status_script(faults: Faults) -> Iterator[Step]:
    """Yield the steps of the answer that `faults.status` asks for."""
    status = faults.status or 500
    kind, body = error_body(faults)
    headers = [("Content-Type", kind)]
    if faults.retry_after is not None:
        headers.append(("Retry-After", faults.retry_after))
    if status == 429:
        headers += [
            ("X-RateLimit-Limit", "20"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", "1767225660000"),
        ]
    yield Pause(faults.headers_ms / 1000)
    if faults.body == "endless":
        yield Head(status, tuple(headers), None, faults.interim)
        yield Write(body, 0, 0, Phase.FINISHING)
        for _ in itertools.count():
            yield Pause(ENDLESS_GAP_S)
            yield Write(PIECE)
    if faults.body == "cut":  # the length promises more than the body holds
        yield Head(status, tuple(headers), len(body) + 100, faults.interim)
        yield Write(body, 0, 0, Phase.FINISHING)
        yield End.FIN
        return
    length = None if faults.framing == "close" else len(body)
    yield Head(status, tuple(headers), length, faults.interim)
    yield Write(body, 0, 0, Phase.FINISHING)


def plain_error(status: int, message: str | None = None) -> Iterator[Step]:
    """Yield the steps of OpenRouter's JSON error, at once."""
    body = error_json(status, message)
    yield Head(status, (JSON,), len(body))
    yield Write(body, 0, 0, Phase.FINISHING)
