"""Leaves calls of a tool in each phase, and sees whether the tool's work stops.

The rule that is measured: "The server MUST treat a client disconnect as cancellation of
that request" (MCP 2026-07-28, basic/patterns/cancellation). Revision 2025-11-25 says
the opposite of a disconnect, so a server that speaks only that one is measured and not
judged.
"""

from __future__ import annotations

import enum
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.connection import ConnectionEndedError
from cancel_lab.clients.dial import dial
from cancel_lab.mcp import messages
from cancel_lab.mcp.client import Call, MCPClient
from cancel_lab.mcp.life import FINISHED, VARIABLE, Life, LifeReports
from cancel_lab.progress import Progress
from cancel_lab.records import Emit, RunRecord, Status, Sut
from cancel_lab.trial import REACH_S, SETTLE_S, TrialError

NOTIFICATION = "notifications/cancelled"
AFTER_BOUND_S = 1.0  # the tool works so much longer than the bound, if it is let
NEIGHBOUR_S = 0.3  # how long the calls beside the one that is left work
ENDLESS = 1_000_000


_NOT_HEARD = (
    f"expected reports of the tool `{messages.TOOL}` at the address in {VARIABLE}, got"
    " none of its first call; start the server with that variable, and see"
    " packages/cancel-lab/mcp_servers for the tool"
)


class Phase(enum.StrEnum):
    """Where a call is when its client leaves it."""

    BEFORE = "before the first byte"
    SILENT = "mid-stream"
    PROGRESS = "during progress"
    AMONG = "among other calls"
    NOTIFIED = "cancelled by notification"


@dataclass(frozen=True, kw_only=True)
class MCPPlan:
    """How much is measured, and by which bound it is judged."""

    name: str
    n: int = 20
    within_s: float = 1.0
    phases: tuple[Phase, ...] = tuple(Phase)
    transport: Transport = Transport.H1

    @property
    def act(self) -> Act:
        """How a client leaves: a stream of HTTP/2 is reset, a connection closed."""
        return Act.RST_STREAM if self.transport.http2 else Act.FIN

    @property
    def work_s(self) -> float:
        """How long the tool works if nobody stops it."""
        return self.within_s + AFTER_BOUND_S


class MCPExperiment:
    """One server under test, its client, and what its tool says of its life."""

    def __init__(self, client: MCPClient, reports: LifeReports, plan: MCPPlan) -> None:
        """Take a client that has negotiated."""
        self._client = client
        self._reports = reports
        self._plan = plan
        self._runs = 0
        self._left: set[int] = set()

    async def run(self, emit: Emit) -> None:
        """Make all runs; after each phase see whether the server still answers.

        :raises TrialError: the tool of the first run has told nothing.
        """
        plan = self._plan
        async with self._listened() as strays:
            with Progress(plan.name, plan.n * len(plan.phases)) as progress:
                for phase in plan.phases:
                    for _ in range(plan.n):
                        emit(await self._try(phase))
                        if not self._reports.heard:
                            raise TrialError(_NOT_HEARD)
                        progress.advance(phase.value)
                    emit(await self._survival(phase))
        if strays:
            emit(
                self._record(
                    "stray", "any", Status.VIOLATED,
                    violations=[f"{len(strays)} answers to calls that were left"],
                )
            )  # fmt: skip

    async def _try(self, phase: Phase) -> RunRecord:
        self._runs += 1
        run = f"{self._plan.name}-{self._runs}"
        try:
            with trio.fail_after(REACH_S + self._plan.work_s):
                if phase is Phase.AMONG:
                    return await self._among(run)
                return await self._alone(run, phase)
        except (TrialError, ConnectionEndedError, OSError, trio.TooSlowError) as exc:
            reason = str(exc) or f"no end within {REACH_S + self._plan.work_s:g} s"
            return self._record(run, phase.value, Status.ERROR, reason=reason)

    @asynccontextmanager
    async def _working(
        self, run: str, progress: int, *, beside: Call | None = None
    ) -> AsyncIterator[Call]:
        """Have a call whose tool has begun to work."""
        number = self._client.number()
        life = self._reports.life(run)
        params = messages.tool_call(run, self._plan.work_s, progress, number)
        async with self._client.call(
            "tools/call", params, number=number, beside=beside
        ) as call:
            await life.started()
            yield call

    async def _alone(self, run: str, phase: Phase) -> RunRecord:
        progress, awaited = {
            Phase.BEFORE: (0, 0),
            Phase.SILENT: (1, 1),
            Phase.PROGRESS: (ENDLESS, 3),
            Phase.NOTIFIED: (1, 1),
        }[phase]
        async with self._working(run, progress) as call:
            await call.read_until(lambda it: len(it.messages) >= awaited)
            if phase is not Phase.PROGRESS:
                await trio.sleep(SETTLE_S)  # the tool is at rest, and so is the server
            if phase is Phase.NOTIFIED:
                return await self._notified(run, call)
            cause = await self._leave(call)
            await self._reports.life(run).over()
            return self._judged(run, phase, cause, [])

    async def _leave(self, call: Call) -> int:
        self._left.add(call.number)
        return await call.stream.act(self._plan.act)

    async def _notified(self, run: str, call: Call) -> RunRecord:
        """Cancel by message; the stream stays open and shows whether it answers."""
        life = self._reports.life(run)
        violations: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.stream.read_to_end)
            params = {"requestId": call.number, "reason": "measured"}
            cause = time.monotonic_ns()
            status = await self._client.notify(NOTIFICATION, params)
            await life.over()
            await trio.sleep(SETTLE_S)  # an answer may follow the end of the work
            nursery.cancel_scope.cancel(reason="the work is over")
        if status != 202:
            violations.append(f"the notification was answered with {status}, not 202")
        if life.how != FINISHED and call.answer is not None:
            violations.append("the call was answered although it had been cancelled")
        return self._judged(run, Phase.NOTIFIED, cause, violations)

    async def _among(self, run: str) -> RunRecord:
        """Leave the second of three calls; the others must be answered."""
        shared = self._plan.act is Act.RST_STREAM
        violations: list[str] = []
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(self._neighbour(f"{run}-first"))
            beside = first if shared else None
            left = await stack.enter_async_context(
                self._working(run, ENDLESS, beside=beside)
            )
            last = await stack.enter_async_context(
                self._neighbour(f"{run}-last", beside=beside)
            )
            await left.read_until(lambda it: len(it.messages) >= 1)
            cause = await self._leave(left)
            for other in (first, last):
                answer = await other.read_answer()
                if "result" not in answer:
                    violations.append(f"a call beside it got {str(answer)[:200]}")
                if other.strays:
                    violations.append(f"a call beside it got {other.strays[0]}")
            await self._reports.life(run).over()
        return self._judged(run, Phase.AMONG, cause, violations)

    @asynccontextmanager
    async def _neighbour(
        self, run: str, *, beside: Call | None = None
    ) -> AsyncIterator[Call]:
        number = self._client.number()
        params = messages.tool_call(run, NEIGHBOUR_S, 3, number)
        async with self._client.call(
            "tools/call", params, number=number, beside=beside
        ) as call:
            yield call

    async def _survival(self, phase: Phase) -> RunRecord:
        self._runs += 1
        run = f"{self._plan.name}-{self._runs}"
        try:
            with trio.fail_after(REACH_S):
                async with self._neighbour(run) as call:
                    answer = await call.read_answer()
        except (TrialError, ConnectionEndedError, OSError, trio.TooSlowError) as exc:
            answer = {"error": str(exc)}
        if "result" in answer:
            return self._record(run, phase.value, Status.PASS, experiment="survival")
        said = f"the next call got {str(answer)[:300]}"
        return self._record(
            run, phase.value, Status.VIOLATED, experiment="survival", violations=[said]
        )

    @asynccontextmanager
    async def _listened(self) -> AsyncIterator[list[messages.Message]]:
        """Collect answers to calls that were left, from the session's own stream.

        Revision 2026-07-28 has no such stream.
        """
        strays: list[messages.Message] = []
        if self._client.version == messages.MODERN:
            yield strays
            return
        body = bytearray()
        request = self._client.listen_request()
        stream = await dial(self._client.address.port, request, Transport.H1, sink=body)
        try:
            async with trio.open_nursery() as nursery:
                await stream.start()
                nursery.start_soon(stream.read_to_end)
                yield strays
                nursery.cancel_scope.cancel(reason="nothing more is measured")
        finally:
            stream.connection.close()
        kind = stream.seen.headers.get("content-type", "")
        said = messages.messages(bytes(body), kind)
        strays += [one for one in said if one.get("id") in [*self._left]]

    def _judged(
        self, run: str, phase: Phase, cause: int, violations: list[str]
    ) -> RunRecord:
        """Return the record of a run whose tool has ended by now."""
        life: Life = self._reports.life(run)
        assert life.ended_ns is not None
        if life.how != "silence" and life.ended_ns < cause:
            raise TrialError(f"the tool ended ({life.how}) before its client left")
        ended = max(cause, life.ended_ns)
        late = ended - cause > self._plan.within_s * 1e9
        if life.how == FINISHED:
            violations = ["the tool worked to its end", *violations]
        elif late:
            violations = ["the tool stopped after the bound", *violations]
        return self._record(
            run,
            phase.value,
            Status.VIOLATED if violations else Status.PASS,
            times={"t_cause": cause, "t_work_end": ended},
            terminal=life.how,
            violations=violations,
        )

    def _record(
        self,
        run: str,
        phase: str,
        status: Status,
        *,
        experiment: str = "mcp",
        times: dict[str, int | None] | None = None,
        terminal: str | None = None,
        violations: list[str] | None = None,
        reason: str | None = None,
    ) -> RunRecord:
        notified = phase == Phase.NOTIFIED.value
        return RunRecord(
            run_id=run,
            tier="mcp",
            experiment=experiment,
            sut=Sut(name=self._plan.name, version=self._client.version),
            cause=NOTIFICATION if notified else self._plan.act.value,
            phase=phase,
            transport=self._plan.transport.value,
            status=status,
            times=times or {},
            within_ns=int(self._plan.within_s * 1e9),
            terminal=terminal,
            violations=violations or [],
            reason=reason,
        )
