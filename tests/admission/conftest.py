"""Servers that the tests of one module share; each test has a prefix of its own."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from loguru import logger

from tests.admission.valkey import BINARIES, Server, running
from trio_ai_stream.admission.gate import Quota, StreamPermits
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.telemetry.logs import configure_logging
from trio_ai_stream.telemetry.metrics import Metrics


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A Valkey that nobody stops."""
    with running("valkey") as server:
        yield server


@pytest.fixture(params=["valkey", "redis"])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each kind of server that this machine has."""
    if BINARIES[request.param] is None:
        pytest.skip(f"no {request.param}-server on this machine")
    with running(request.param) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Server]:
    """A Valkey that the test may stop, freeze and fill."""
    with running("valkey") as server:
        yield server


@pytest.fixture
def make_gate() -> Callable[..., SharedGate]:
    """Make gates that share one prefix, which no other test uses."""
    prefix = f"test-{uuid.uuid4().hex}"

    def make(url: str, **options: object) -> SharedGate:
        quota = options.pop("quota", Quota(rate=1, burst=20))
        permits = options.pop("permits", StreamPermits(5))
        options = {"prefix": prefix, "lease_s": 1.0, "timeout_s": 2.0, **options}
        metrics = Metrics(version="1", upstream="simulator")
        return SharedGate(url, quota, permits, metrics, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def log() -> Iterator[Callable[[str], list[dict[str, object]]]]:
    """Return the records of one event, as they are in the log."""
    stream = io.StringIO()
    configure_logging("DEBUG", "json", stream)

    def records(event: str) -> list[dict[str, object]]:
        logger.complete()
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    yield records
    configure_logging(stream=io.StringIO())
