"""The application of many runs: routes once for each settings, state new in each run.

Compiling the routes takes longer than serving a stream, and they hold no state. What
does is put in anew: registry, permits, rate limits, retries, bills, and, with the
lifespan, upstream.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from tests.sweep.network import Network
from tests.sweep.scenario import Scenario
from trio_ai_stream.admission.admission_factory import open_admission
from trio_ai_stream.app_factory import create_app, make_retries
from trio_ai_stream.billing.billing import open_billing
from trio_ai_stream.billing.usage_database import UsageDatabase
from trio_ai_stream.billing.usage_ledger import left_journals
from trio_ai_stream.http.application import Application
from trio_ai_stream.settings import Settings
from trio_ai_stream.stream.registry import Registry
from trio_ai_stream.wire.record import Record


class _Stage:
    """One application; `network` is that of the run under way."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.network: Network | None = None
        self.app = create_app(settings, connect=self._connect)
        self.start = self.app.start_services

    async def _connect(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        assert self.network is not None
        return await self.network.connect(host, port, tls)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed with this process."""
    return tempfile.TemporaryDirectory(prefix="sweep-")


def ledger_of(app: Application) -> list[str]:
    """Return the requests of all rows that a server has left, once it has stopped."""
    ledger = app.services.billing.ledger
    assert ledger is not None
    database = UsageDatabase(ledger._path)
    for _path, lines in left_journals(ledger._path):
        database.put(lines)
    found = database._db.execute("SELECT request_id FROM streams").fetchall()
    database.close()
    return sorted(name for (name,) in found)


_stages: Final[dict[tuple[object, ...], _Stage]] = {}


def application(
    scenario: Scenario, network: Network, observe: Callable[[Record], None]
) -> Application:
    """Return the scenario's application as new, upon this network."""
    key = (scenario.upstream_origin, scenario.key, *sorted(scenario.settings.items()))
    stage = None if scenario.own_app else _stages.get(key)
    if stage is None:
        stage = _stages[key] = _Stage(scenario.make_settings())
    stage.network = network
    services, settings = stage.app.services, stage.settings
    services.registry = Registry()
    services.retries = make_retries(settings, services.metrics)
    services.observe = observe
    services.upstream = None
    if scenario.valkey:
        settings = scenario.make_settings(REDIS_URL="redis://valkey.test")
    admission = open_admission(settings, services.registry, services.metrics)
    services.gate, services.directory = admission.gate, admission.directory
    ledger = None
    if scenario.ledger:  # a new file, so that each run begins alike
        ledger = Path(tempfile.mkdtemp(dir=_folder().name)) / "ledger.db"
    settings = replace(settings, LEDGER_FILE=ledger)
    services.billing = open_billing(
        settings, services.metrics, services.gate, services.estimator
    )

    async def start(nursery: trio.Nursery) -> None:
        await nursery.start(admission.run)
        await stage.start(nursery)

    stage.app.start_services = start
    return stage.app
