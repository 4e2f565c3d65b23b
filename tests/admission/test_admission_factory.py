"""Which gate and which directory a deployment gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.admission.streams import Streams
from tests.admission.valkey import Server
from trio_ai_stream.admission import admission_factory
from trio_ai_stream.admission.admission_factory import Admission, open_admission
from trio_ai_stream.admission.gate import Permit
from trio_ai_stream.settings import SettingsError, load_settings
from trio_ai_stream.telemetry.metrics import Metrics


def opened(folder: Path | None = None, **values: str) -> Admission:
    return open_admission(
        load_settings(values, None),
        Streams("here", a="ann"),
        Metrics(version="1", upstream="simulator"),
        folder,
    )


@pytest.mark.parametrize("kind", ["alone", "workers", "shared"])
async def test_each_deployment_admits_lists_and_cancels(
    kind: str, tmp_path: Path, valkey: Server
) -> None:
    """Alone, with workers or with Valkey: the same protocol does the same."""
    shared = {"REDIS_URL": valkey.url, "REDIS_PREFIX": "factory"}
    admission = opened(
        tmp_path if kind == "workers" else None,
        **(shared if kind == "shared" else {}),
    )
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
        "import sys, trio_ai_stream.admission.admission_factory;"
        "sys.exit('coredis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_URL without the extra `redis` is an error that says what to install."""
    monkeypatch.setattr(admission_factory, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"trio-ai-stream\[redis\]"):
        opened(REDIS_URL="redis://127.0.0.1:1")
