"""The run record: what one observed cancellation came to, one JSON line each.

Everything the instrument reports is derived from these lines and from nothing else, so
a run can be analysed again without being repeated. Rules of the format:

- A time is nanoseconds of ``CLOCK_MONOTONIC``, which all processes of one host
  share.
- A time that was not observed is ``None``, never 0. If the instrument watched for it
  and gave up, ``watched_until_ns`` says until when, so the analysis can censor it.
- Counts that could not be read are absent, not 0.
"""

from __future__ import annotations

import enum
import gzip
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Self, cast

import msgspec

SCHEMA_VERSION = 1


class Status(enum.StrEnum):
    """What became of one run."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    VIOLATED = "violated"
    DIVERGED = "diverged"
    HUNG = "hung"
    ERROR = "error"
    SKIPPED = "skipped"
    CENSORED = "censored"


class Sut(msgspec.Struct, frozen=True, kw_only=True):
    """The system under test."""

    name: str
    version: str | None = None
    git: str | None = None


class RunRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="schema_version",
    tag=SCHEMA_VERSION,
):
    """One run: the factors that were set, the times that were seen, the verdict.

    ``times`` holds ``t_cause``, ``t_up``, ``t_exit`` … of facts C3, ``tokens`` the
    wasted-token counts, ``leaks`` differences from the baseline, ``series`` what was
    sampled over time as ``[nanoseconds since t_cause, value]`` pairs, and ``samples``
    one latency per stream for runs that cancel many streams at once. ``within_ns`` is
    the bound by which a run was judged. ``variant`` is empty in the plain case, and
    else says what stood around the stream: another API, a proxy, a lossy network.
    """

    run_id: str
    tier: str
    sut: Sut
    cause: str
    phase: str
    transport: str
    status: Status
    experiment: str = ""
    variant: str = ""
    policy: str = "abort"
    grace_s: float | None = None
    seed: int | None = None
    k: int | None = None
    script_hash: str | None = None
    violations: list[str] = []
    reason: str | None = None
    times: dict[str, int | None] = {}
    watched_until_ns: int | None = None
    within_ns: int | None = None
    tokens: dict[str, int] = {}
    leaks: dict[str, int] = {}
    counts: dict[str, int] = {}
    verdicts: dict[str, int] = {}
    sites: list[str] = []
    series: dict[str, list[tuple[int, float]]] = {}
    samples: dict[str, list[int]] = {}
    cause_recorded: str | None = None
    terminal: str | None = None
    replay: str | None = None

    def latency(self, name: str) -> tuple[int, bool] | None:
        """Return ``(nanoseconds from t_cause, observed)`` of the time ``name``.

        A time that was watched for and not seen comes as ``(bound, False)``; one that
        nobody watched for, or whose cause has no time, as ``None``.
        """
        cause = self.times.get("t_cause")
        if cause is None or name not in self.times:
            return None
        seen = self.times[name]
        if seen is not None:
            return seen - cause, True
        if self.watched_until_ns is None:
            return None
        return self.watched_until_ns - cause, False


class RecordError(ValueError):
    """A line of a results file is not a record of a version that this code reads."""


Emit = Callable[[RunRecord], None]
_decoder = msgspec.json.Decoder(RunRecord)
_encoder = msgspec.json.Encoder(order="deterministic")


class _Versioned(msgspec.Struct):
    schema_version: int = 0


def encode(record: RunRecord) -> bytes:
    """Return the record as one JSON line; equal records give equal bytes."""
    return _encoder.encode(record) + b"\n"


def decode(line: bytes) -> RunRecord:
    """Return the record of one line; raise RecordError if it is not one."""
    try:
        version = msgspec.json.decode(line, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise RecordError(
                f"expected a record of schema version {SCHEMA_VERSION}, got {version}: "
                "read it with the release of trio-ai-stream that wrote it"
            )
        return _decoder.decode(line)
    except msgspec.DecodeError as exc:
        raise RecordError(f"expected one run record a line, got: {exc}") from exc


class Writer:
    """Appends records to a file, each whole and flushed, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        """Create or extend ``path``; its folder is made if need be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab")
        self.path = path

    def write(self, record: RunRecord) -> None:
        """Append one record."""
        self._file.write(encode(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file; the kernel has all of it."""
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def read(paths: Iterable[Path]) -> Iterator[RunRecord]:
    """Yield the records of several results files in order; blank lines are skipped.

    A file whose name ends in ``.gz`` is unpacked on the way.
    """
    for path in paths:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield decode(line)
                except RecordError as exc:
                    raise RecordError(f"{path.name}, line {number}: {exc}") from exc
