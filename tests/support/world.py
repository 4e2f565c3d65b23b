"""The whole application in memory: real Quart, real transport, real simulator.

The client's side is ASGI, upstream's side is a pair of memory streams, time is Trio's
mock clock: so a test asserts exact times, and nothing here is a fake of our own parts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from trio_ai_stream.admission.directory import LocalDirectory
from trio_ai_stream.admission.gate import LocalGate, Quota, StreamPermits
from trio_ai_stream.app_factory import key_ring
from trio_ai_stream.billing.billing import Billing
from trio_ai_stream.billing.spending import LedgerTotals, Spending, Totals
from trio_ai_stream.billing.usage_ledger import UsageLedger
from trio_ai_stream.http.application import Application
from trio_ai_stream.http.services import Services
from trio_ai_stream.server.http_stream import EXTENSION, Exchange
from trio_ai_stream.settings import load_settings
from trio_ai_stream.simulator.simulator import Simulator
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.registry import Registry
from trio_ai_stream.stream.retries import Retries, RetryBudget
from trio_ai_stream.stream.timers import TimerQueue
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import UpstreamTransport
from trio_ai_stream.wire.record import Record

BASE_URL = "http://upstream/api/v1"
BUDGETS = Budgets(
    first_token_s=20,
    idle_s=10,
    deadline_s=100,
    heartbeat_s=4,
    alive_s=20,
    write_s=2,
    done_grace_s=2,
)


class Visit:
    """One request as its client lives it; `task` runs the ASGI call."""

    def __init__(self, app: Any, path: str, body: bytes, **options: Any) -> None:
        self._app = app
        self._to_app, self._inbox = trio.open_memory_channel[dict[str, Any]](10)
        self.exchange = Exchange(
            reports_disconnect=options.get("reports_disconnect", True),
            limits_body_time=options.get("limits_body_time", False),
        )
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = trio.Event()
        self.over = trio.Event()
        self.arrived: list[tuple[float, bytes]] = []
        self.news = trio.Event()  # set, and made anew, by each piece of the body
        self.reading = trio.Event()
        self.reading.set()
        self._may_fail = options.get("may_fail", False)
        self.overlaps = 0  # writes that began while another was under way
        self._sending = False
        headers = {"content-type": "application/json", "host": "localhost"}
        headers |= options.get("headers", {})
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": options.get("method", "POST"),
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": options.get("query", "").encode(),
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 1234),
            "server": options.get("server", ("127.0.0.1", 80)),
            "state": {},
            "extensions": {EXTENSION: self.exchange},
        }
        self._to_app.send_nowait(
            {
                "type": "http.request",
                "body": body,
                "more_body": options.get("more_body", False),
            }
        )

    async def task(self) -> None:
        """Run the ASGI call."""
        try:
            await self._app(self.scope, self._inbox.receive, self._send)
        except Exception:
            if not self._may_fail:  # a server cuts the connection off then
                raise
        finally:
            self.over.set()

    async def _send(self, message: dict[str, Any]) -> None:
        self.overlaps += self._sending
        self._sending = True
        try:
            await self._take(message)
        finally:
            self._sending = False

    async def _take(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = message["headers"]
            self.headers = {k.decode().lower(): v.decode() for k, v in pairs}
            return
        with trio.CancelScope(shield=True):  # as the server's send: whole or not at all
            await self.reading.wait()
        if message["body"]:
            self.arrived.append((trio.current_time(), message["body"]))
        self.body += message["body"]
        self.news.set()
        self.news = trio.Event()
        if not message["more_body"]:
            self.ended.set()

    def leave(self, *, stalled: bool = False, drained: bool = False) -> None:
        """Go away, or be found not to read, or be cut off by the end of a drain."""
        self._to_app.send_nowait({"type": "http.disconnect"})
        if self.exchange.reports_disconnect:
            self.exchange.disconnect(stalled=stalled, drained=drained)
        else:
            self.exchange.stalled, self.exchange.drained = stalled, drained

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that arrived, comments left out."""
        blocks = self.body.decode().split("\n\n")
        return [json.loads(b[6:]) for b in blocks if b.startswith("data: ")]

    @property
    def types(self) -> list[str]:
        """The types of the events that arrived."""
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        """The content that arrived."""
        return "".join(e["content"] for e in self.events if e["type"] == "content")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class World:
    """The application and what stands around it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        budgets: Budgets = BUDGETS,
        permits: int = 100,
        env: dict[str, str] | None = None,
        ledger: UsageLedger | None = None,
        totals: Totals | None = None,
        bills: bool = False,
        stage: Application | None = None,
    ) -> None:
        """Build it; `stage` is the application of a world before, if it may be reused.

        To compile its routes takes longer than a stream, and they hold no state.
        """
        self.nursery = nursery
        self.simulator = Simulator()
        self.reachable = True
        self.records: list[Record] = []
        self.upstreams: list[trio.CancelScope] = []  # a cancel closes that connection
        self.on_upstream: Callable[[trio.abc.Stream], None] | None = None
        self.permits = StreamPermits(permits)
        self.transport = UpstreamTransport(connect=self._connect)
        settings = load_settings({"RATE_LIMIT": "1000", **(env or {})}, None)
        registry = Registry()
        metrics = (
            Metrics(version="test", upstream="simulator")
            if stage is None
            else stage.services.metrics
        )
        estimator = TokenEstimator(metrics.estimate_compared)
        self.services = Services(
            settings=settings,
            keys=key_ring(settings),
            budgets=budgets,
            gate=LocalGate(Quota.per_second(1000), self.permits),
            registry=registry,
            timer_queue=TimerQueue(),
            retries=Retries(RetryBudget(share=0.1, floor=10), metrics.retry_denied),
            directory=LocalDirectory(registry),
            observe=self.records.append,
            metrics=metrics,
            estimator=estimator,
            billing=Billing(
                metrics,
                estimator,
                clients="full",
                reconcile_s=300,
                ledger=ledger,
                spending=Spending(totals or LedgerTotals(ledger), settings.named_keys),
            ),
            upstream=OpenRouter(
                self.transport,
                base_url=BASE_URL,
                kind="simulator",
                headers={},
                connect_s=5,
                on_status=metrics.upstream_answered,
                buffer_bytes=settings.UPSTREAM_BUFFER_BYTES,
            ),
        )
        if stage is None:
            self.app = Application(self.services, self._start)
        else:
            self.app = stage
            for each in dataclasses.fields(Services):
                made = getattr(self.services, each.name)
                setattr(stage.services, each.name, made)
            self.services = stage.services
        nursery.start_soon(self.services.timer_queue.run)
        if bills:
            assert self.services.upstream is not None
            nursery.start_soon(
                self.services.billing.run,
                self.services.upstream.get,
                lambda: registry,
            )
        nursery.start_soon(self.services.resumables.run)

    async def _start(self, _nursery: trio.Nursery) -> None:
        """Nothing is to be started: `services` is complete."""

    async def _connect(self, _host: str, _port: int, _tls: bool) -> trio.abc.Stream:
        if not self.reachable:
            await trio.sleep_forever()
        ours, theirs = trio.testing.memory_stream_pair()
        if self.on_upstream is not None:
            self.on_upstream(ours)
        self.nursery.start_soon(self._simulate, theirs)
        return ours

    async def _simulate(self, stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope:
            self.upstreams.append(scope)
            await self.simulator.handle(stream)

    def visit(self, body: Any = None, path: str = "/chat", **options: Any) -> Visit:
        """Begin a request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        visit = Visit(self.app, path, data, **options)
        self.nursery.start_soon(visit.task)
        return visit

    def chat(self, model: str = "simulator/default", **fields: Any) -> Visit:
        """Begin a chat with one of the simulator's models."""
        return self.visit({"prompt": "hello", "model": model, **fields})

    @property
    def record(self) -> Record:
        """The one record there is."""
        (record,) = self.records
        return record

    def assert_clean(self) -> None:
        """Nothing is held: no permit, no body, no entry, no upstream connection."""
        assert self.permits.held == 0
        assert self.services.bodies.held == 0
        assert len(self.services.registry) == 0
        assert len(self.services.timer_queue) == 0
        assert self.transport.statistics().live == 0
        assert self.transport.statistics().connecting == 0


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    """Give a world that is torn down with its block."""
    async with trio.open_nursery() as nursery:
        built = World(nursery, **options)
        yield built  # a fixture's yield, in a context manager made for it
        await built.transport.aclose()
        nursery.cancel_scope.cancel(reason="test over")
