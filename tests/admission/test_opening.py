"""Which gate and which directory a deployment gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.admission.streams import Streams
from tests.admission.valkey import Server
from trio_ai_stream.admission import opening
from trio_ai_stream.admission.decision import Quota
from trio_ai_stream.admission.opening import (
    Admission,
    MissingExtraError,
    Sharing,
    open_admission,
)
from trio_ai_stream.admission.permits import Permit, StreamPermits
from trio_ai_stream.telemetry.metrics import Metrics


def opened(sharing: Sharing | None = None, folder: Path | None = None) -> Admission:
    return open_admission(
        Quota(10, 10),
        StreamPermits(3),
        Streams("here", a="ann"),
        Metrics(version="1", upstream="simulator"),
        sharing=sharing,
        run_folder=folder,
    )


@pytest.mark.parametrize("kind", ["alone", "workers", "shared"])
async def test_each_deployment_admits_lists_and_cancels(
    kind: str, tmp_path: Path, valkey: Server
) -> None:
    """Alone, with workers or with Valkey: the same protocol does the same."""
    sharing = Sharing(valkey.url, prefix="opening") if kind == "shared" else None
    admission = opened(sharing, tmp_path if kind == "workers" else None)
    async with trio.open_nursery() as nursery:
        await nursery.start(admission.run)
        assert (await admission.gate.admit_request("ann")).allowed
        permit = await admission.gate.acquire_stream("ann", "a")
        assert isinstance(permit, Permit)
        listing = await admission.directory.list_streams(None)
        assert [entry["id"] for entry in listing.entries] == ["a"]
        cancelled = await admission.directory.cancel("a", None)
        assert cancelled == {"id": "a", "cancelled_at": "here"}
        mode = admission.gate.status().mode
        assert mode == ("shared" if kind == "shared" else "local")
        permit.release()
        await admission.gate.leave()
        nursery.cancel_scope.cancel(reason="the test is over")


def test_nothing_is_imported_that_is_not_used() -> None:
    """Without REDIS_URL the client of Redis is not imported."""
    code = (
        "import sys, trio_ai_stream.admission.opening;"
        "sys.exit('coredis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_URL without the extra `redis` is an error that says what to install."""
    monkeypatch.setattr(opening, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"trio-ai-stream\[redis\]"):
        opened(Sharing("redis://127.0.0.1:1"))


def test_the_url_is_in_no_repr() -> None:
    """A password in the URL is not shown by accident."""
    assert "secret" not in repr(Sharing("redis://:secret@host"))
