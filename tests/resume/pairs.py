"""A stream is left at one step and come back to at a later one: at all steps.

A step is one turn of one task, of any part of the application. In the same step the
client is found gone, or its next request arrives, or another cause ends the stream.
`python -m tests.sweep --full` tries every pair, `--resume N` each N-th step with each
N-th; the test of the same name some.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio
from trio.testing import MockClock

from tests.resume.endpoints import SAID, TERMINAL, VARYING
from tests.support.world import Visit, World, world
from tests.sweep.programs import quiet
from trio_ai_stream.wire.record import Outcome
from trio_sweep.parallel import spread

GRACE_S: Final = 5.0
MODEL: Final = "simulator/default?chunks=3&delay_ms=10"
CAUSES: Final = {
    "delete": Outcome.CANCELLED,
    "drain": Outcome.SHUTDOWN,
    "deadline": Outcome.DEADLINE_EXCEEDED,
    "break": Outcome.UPSTREAM_FAILED,
}
_LOST: Final = {Outcome.CLIENT_DISCONNECTED, Outcome.CLIENT_STALLED}
_ID: Final = re.compile(rb"^id: (\d+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Plan:
    """At which steps what happens: `detach`, `stall`, `attach`, or a cause."""

    path: str
    acts: tuple[tuple[int, str], ...]


class Acts(trio.abc.Instrument):
    """Does what is planned before the step that it is planned for."""

    def __init__(self, acts: Iterable[tuple[int, Callable[[], None]]]) -> None:
        self.steps = 0
        self.failed: BaseException | None = None
        self._acts = dict(acts)

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        """Count the step; act if it is time."""
        self.steps += 1
        act = self._acts.pop(self.steps, None)
        if act is not None:
            try:
                act()
            except BaseException as exc:
                self.failed = exc
                raise


class Client:
    """One client over its connections."""

    def __init__(self, w: World, path: str) -> None:
        self.w = w
        self.visits = [
            w.visit(
                {"model": MODEL, **SAID[path]},
                path,
                headers={"x-request-id": "mine", "x-stream-grace": f"{GRACE_S:g}"},
            )
        ]
        self.attached = True
        self._had = b""  # what came before the last loss; what comes late is lost

    @property
    def last(self) -> int:
        """The id of the last whole event that it has."""
        found = _ID.findall(self.body.rpartition(b"\n\n")[0] + b"\n\n")
        return int(found[-1]) if found else 0

    @property
    def body(self) -> bytes:
        """What all connections brought."""
        live = self.visits[-1]
        return self._had + (live.body if self.attached and live.status == 200 else b"")

    def detach(self, *, stalled: bool = False) -> None:
        """Lose the connection, if there is one; or be found not to read."""
        if self.attached and not self.visits[-1].over.is_set():
            self._had = self.body
            self.visits[-1].leave(stalled=stalled)
            self.attached = False

    def attach(self) -> None:
        """Come back, if the connection is lost and the way is known."""
        way = self.visits[0].headers.get("x-stream-resume")
        if way is not None and not self.attached:
            path, _, query = way.partition("?")
            headers = {"last-event-id": str(self.last)}
            options: dict[str, Any] = {"method": "GET", "query": query}
            self.visits.append(self.w.visit(b"", path, headers=headers, **options))
            self.attached = True

    def end(self, cause: str) -> None:
        """Let another cause end the stream, if it still lives."""
        if cause == "break":
            for upstream in self.w.upstreams:
                upstream.cancel(reason="upstream breaks")
            return
        stream = self.w.services.registry.get("mine")
        if stream is not None:
            stream.stop(CAUSES[cause])


async def _undergo(plan: Plan) -> tuple[int, bytes, Visit, list[Outcome]]:
    """Run one plan to its end; return its steps, the bytes, the last visit, the ends.

    It raises AssertionError where anything is left behind.
    """
    async with world() as w:
        client = Client(w, plan.path)
        does: dict[str, Callable[[], None]] = {
            "detach": client.detach,
            "stall": partial(client.detach, stalled=True),
            "attach": client.attach,
        }
        acts = Acts(
            (step, does.get(act) or partial(client.end, act)) for step, act in plan.acts
        )
        trio.lowlevel.add_instrument(acts)
        with trio.fail_after(100):
            seen = 0
            while seen < len(client.visits):
                await client.visits[seen].over.wait()
                seen += 1
                if not client.attached:  # it may come back at a later step
                    await trio.sleep(GRACE_S / 2)
        trio.lowlevel.remove_instrument(acts)
        assert acts.failed is None, acts.failed
        await trio.sleep(2 * GRACE_S + 1)
        w.assert_clean()
        assert len(w.services.resumables) == 0
        assert w.services.resumables.budget.held == 0
        assert not w.services.request_ids
        outcomes = [record.outcome for record in w.records]
        last = client.visits[-1]
        if not client.attached:  # what it was sent after it had left, it never had
            last.ended = trio.Event()
        return acts.steps, client.body, last, outcomes


def run(plan: Plan) -> tuple[int, bytes, Visit, list[Outcome]]:
    """Run one plan on a mock clock of its own."""
    return trio.run(_undergo, plan, clock=MockClock(autojump_threshold=0))


def judge(plan: Plan, whole: bytes) -> str:
    """Return what is wrong with a run of the plan; nothing if all is well."""
    try:
        _, body, last, outcomes = run(plan)
    except Exception as exc:
        return f"{plan}: {exc!r}"
    ids = [int(number) for number in _ID.findall(body)]
    body, whole = VARYING.sub(b"", body), VARYING.sub(b"", whole)
    causes = [CAUSES[act] for _, act in plan.acts if act in CAUSES]
    problems = []
    if ids != list(range(1, len(ids) + 1)):
        problems.append(f"ids {ids}")
    if not outcomes and last.status is None:
        return ""  # lost before there was a stream
    if len(outcomes) != 1:
        problems.append(f"records {outcomes}")
    elif outcomes[0] is Outcome.COMPLETED:
        if last.ended.is_set() and last.status in {200, 204} and body != whole:
            problems.append(f"not the undisturbed stream: {body!r}")
        if not last.ended.is_set() and not whole.startswith(body):
            problems.append("not the beginning of the undisturbed stream")
    elif outcomes[0] in causes:
        if last.ended.is_set() and last.status == 200:
            terminal = len(TERMINAL[plan.path].findall(body))
            if terminal != 1:
                problems.append(f"{terminal} terminal events")
    elif outcomes[0] is Outcome.ABANDONED:
        if not whole.startswith(body):
            problems.append("not the beginning of the undisturbed stream")
    elif outcomes[0] not in _LOST:  # before it was begun
        problems.append(f"outcome {outcomes[0]}")
    return f"{plan}: {'; '.join(problems)}" if problems else ""


def plans(path: str, steps: int, *, stride: int) -> list[Plan]:
    """Return pairs of steps, pairs with a second loss, and with each other cause."""
    made = []
    for j in range(1, steps + 1, stride):
        for k in range(j + 1, steps + 40, stride):
            pair = ((j, "detach"), (k, "attach"))
            made.append(Plan(path, pair))
            middle = (j + k) // 2
            if middle > j:
                made += [Plan(path, (pair[0], (middle, c), pair[1])) for c in CAUSES]
            made.append(Plan(path, ((j, "stall"), pair[1])))
            again = ((k + 7, "detach"), (k + 19, "attach"))
            made.append(Plan(path, (*pair, *again)))
    return made


def sweep(path: str, *, stride: int, jobs: int = 1) -> tuple[int, list[str]]:
    """Try all pairs, or those `stride` steps apart; return how many, and what fails."""
    steps, whole, _, _ = run(Plan(path, ()))
    tried: Sequence[Plan] = plans(path, steps, stride=stride)
    verdicts = spread(lambda number: judge(tried[number], whole), len(tried), jobs)
    return len(tried), [wrong for wrong in verdicts if wrong]


def sweep_all(stride: int, jobs: int) -> Iterator[tuple[str, int, list[str]]]:
    """Yield of each endpoint how many runs there were, and what failed."""
    with quiet():
        for path in SAID:
            count, problems = sweep(path, stride=stride, jobs=jobs)
            yield path, count, problems
