"""A stream is left at one step and come back to at a later one: at all steps.

A step is one turn of one task, of any part of the application. In the same step the
client is found gone, or its next request arrives, or another cause ends the stream.
`python -m tests.sweep --full` tries every pair, `--resume N` each N-th step with each
N-th; the test of the same name some.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from trio.testing import MockClock

from tests.resume.endpoints import SAID, TERMINAL, VARYING
from tests.resume.watch import NAME, Watch
from tests.support.world import BUDGETS, Visit, World, world
from tests.sweep.programs import quiet
from tests.sweep.recorded import commit
from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.wire.dialect import EventEncoder
from trio_ai_stream.wire.events import Item
from trio_ai_stream.wire.record import Outcome, Record
from trio_sweep import MisuseError, internals
from trio_sweep.parallel import spread

GRACE_S: Final = 5.0
MODEL: Final = "simulator/default?chunks=3&delay_ms=10"
CAUSES: Final = {
    "delete": Outcome.CANCELLED,
    "drain": Outcome.SHUTDOWN,
    "deadline": Outcome.DEADLINE_EXCEEDED,
    "first_token": Outcome.FIRST_TOKEN_TIMEOUT,
    "idle": Outcome.STREAM_IDLE_TIMEOUT,
    "break": Outcome.UPSTREAM_FAILED,
    "bug": Outcome.INTERNAL_ERROR,
}
_STOPS: Final = ("delete", "drain")
_BUDGETS: Final = ("deadline", "first_token", "idle")
_LOST: Final = {Outcome.CLIENT_DISCONNECTED, Outcome.CLIENT_STALLED}
_ID: Final = re.compile(rb"^id: (\d+)\n", re.MULTILINE)
# The write of the terminal event, and what is read behind an answer.
_ENDING_S: Final = BUDGETS.write_s + REUSE_S
LONGEST_S: Final = 2 * GRACE_S + _ENDING_S


@dataclass(frozen=True, slots=True)
class Plan:
    """At which steps what happens: `detach`, `stall`, `attach`, or a cause."""

    path: str
    acts: tuple[tuple[int, str], ...]

    @property
    def kind(self) -> str:
        """What happens beside one loss and one return."""
        names = [act for _, act in self.acts]
        if len(names) > 3:
            return "a second loss and return"
        return names[1] if len(names) > 2 else names[0]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to; `decided` is the outcome that an act had the stream take."""

    steps: int
    body: bytes  # what all connections brought
    last: Visit
    records: list[Record]
    decided: Outcome | None
    again: bytes  # the same request's answer, asked once more
    complaints: list[str]


class Client:
    """One client over its connections."""

    def __init__(self, w: World, path: str, name: str = NAME) -> None:
        self.w = w
        self.visits = [
            w.visit(
                {"model": MODEL, **SAID[path]},
                path,
                headers={"x-request-id": name, "x-stream-grace": f"{GRACE_S:g}"},
            )
        ]
        self.attached = True
        self.decided: Outcome | None = None
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
        stream = self.w.services.registry.get(NAME)
        if stream is None:
            return
        if cause in _STOPS:
            if stream.stop(CAUSES[cause]):
                self.decided = CAUSES[cause]
        elif cause in _BUDGETS:
            scope = stream.scopes.get(cause)
            if scope is not None:  # Trio notices at its next look at the clock
                scope.deadline = trio.current_time()
        elif cause == "bug":
            resumable = self.w.services.resumables._known.get(NAME)
            if resumable is not None:
                resumable.encoder = Broken(resumable.encoder)
        else:
            for upstream in self.w.upstreams:
                upstream.cancel(reason="upstream breaks")


class Broken:
    """An encoder with a mistake of ours, for whatever comes next."""

    def __init__(self, encoder: EventEncoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def content(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """Fail."""
        raise RuntimeError("a bug of ours")


async def _undergo(plan: Plan) -> Run:
    """Run one plan to its end, then ask the same once more."""
    async with world() as w:
        watch = Watch(w)
        with watch.listening():
            client = Client(w, plan.path)
            does: dict[str, Callable[[], None]] = {
                "detach": client.detach,
                "stall": partial(client.detach, stalled=True),
                "attach": client.attach,
            }
            watch.plan(
                (step, does.get(act) or partial(client.end, act))
                for step, act in plan.acts
            )
            began_at = trio.current_time()
            with trio.fail_after(100):
                seen = 0
                while seen < len(client.visits):
                    await client.visits[seen].over.wait()
                    seen += 1
                    if not client.attached:  # it may come back at a later step
                        await trio.sleep(GRACE_S / 2)
            steps = watch.steps
            watch.plan(())  # what would come later than that never comes
            took_s = trio.current_time() - began_at
            await trio.sleep(2 * GRACE_S + 1)
            body, last = client.body, client.visits[-1]
            again = Client(w, plan.path, "again")
            await again.visits[0].over.wait()
            await trio.sleep(2 * GRACE_S + 1)
            watch.look_back()
            w.assert_clean()
            resumables = w.services.resumables
            if len(resumables) or resumables.budget.held or w.services.request_ids:
                watch.complain("I4: a log, its bytes or an id is held")
            if any(visit.overlaps for visit in client.visits):
                watch.complain("I3: two writes to one client at a time")
            if took_s > LONGEST_S:
                watch.complain(f"it took {took_s:.1f} s")
        if not client.attached:  # what it was sent after it had left, it never had
            last.ended = trio.Event()
        return Run(
            steps,
            body,
            last,
            [record for record in w.records if record.request_id == NAME],
            client.decided,
            again.body.replace(b'"again"', b'"%s"' % NAME.encode()),
            watch.complaints,
        )


def run(plan: Plan) -> Run:
    """Run one plan on a mock clock of its own, with tasks always in the same order."""
    with internals.deterministic(0):
        return trio.run(_undergo, plan, clock=MockClock(autojump_threshold=0))


def judge(plan: Plan, undisturbed: bytes) -> str:
    """Return what is wrong with a run of the plan; nothing if all is well."""
    return _judged(plan, undisturbed)[1]


def _judged(plan: Plan, undisturbed: bytes) -> tuple[str, str]:
    """Return how the stream ended, and what is wrong."""
    try:
        lived = run(plan)
    except Exception as exc:
        return "", f"{plan}: {exc!r}"
    outcomes = ", ".join(record.outcome for record in lived.records) or "no stream"
    problems = list(_problems(plan, lived, VARYING.sub(b"", undisturbed)))
    return outcomes, f"{plan}: {'; '.join(problems)}" if problems else ""


def _problems(plan: Plan, lived: Run, whole: bytes) -> Iterator[str]:
    acts = {act for _, act in plan.acts}
    # Our bug is logged. That upstream closed a kept connection, only using it shows,
    # as pipes in memory are: then the next request fails, and has none to keep.
    excused = {"bug": "I10: logged", "break": "I8: 0 connections"}
    for complaint in lived.complaints:
        if not any(
            act in acts and complaint.startswith(what) for act, what in excused.items()
        ):
            yield complaint
    if VARYING.sub(b"", lived.again) != whole and "break" not in acts:
        yield "I12: asked again, it is not the undisturbed stream"
    last, records = lived.last, lived.records
    ids = [int(number) for number in _ID.findall(lived.body)]
    if ids != list(range(1, len(ids) + 1)):
        yield f"ids {ids}"
    if not records and last.status is None:
        return  # lost before there was a stream
    if len(records) != 1:
        yield f"I3: records {records}"
        return
    (record,) = records
    yield from _outcome(plan, record, lived.decided)
    body = VARYING.sub(b"", lived.body)
    heard = last.ended.is_set() and last.status in {200, 204}
    if record.outcome is Outcome.COMPLETED:
        if heard and body != whole:
            yield f"not the undisturbed stream: {body!r}"
    elif heard and last.status == 200 and record.outcome is not Outcome.ABANDONED:
        terminal = len(TERMINAL[plan.path].findall(body))
        if terminal != 1:
            yield f"I3: {terminal} terminal events"
        body = body.rpartition(b"id: ")[0]  # all but the last event
    if not whole.startswith(body):
        yield f"not the beginning of the undisturbed stream: {body!r}"
    late = record.cancel_latency_s
    if late:
        yield f"I1: upstream was closed {late} s after the cause"
    if record.ending_s > _ENDING_S:
        yield f"it was over {record.ending_s} s after its end was decided"


def _outcome(plan: Plan, record: Record, decided: Outcome | None) -> Iterator[str]:
    """I6: the outcome is that of a cause, and that of the one that decided."""
    acts = {act for _, act in plan.acts}
    expected = {CAUSES[act] for act in acts if act in CAUSES}
    expected |= {Outcome.COMPLETED, Outcome.ABANDONED} | _LOST
    if decided is not None:
        expected = {decided}
    if record.outcome not in expected:
        yield f"I6: {record.outcome}, expected {sorted(expected)}"
    if record.outcome in _LOST and record.events:
        yield f"I6: {record.outcome} of a stream that has a grace and had begun"
    if record.outcome is Outcome.ABANDONED and not acts & {"detach", "stall"}:
        yield "I6: abandoned, and nobody left"


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


class Tried(msgspec.Struct, kw_only=True):
    """What the runs of one endpoint came to, `stride` steps apart.

    `kinds` counts them by what happens beside one loss and one return, `outcomes` by
    how the stream ended.
    """

    commit: str
    stride: int
    steps: int
    kinds: dict[str, int]
    outcomes: dict[str, int]
    violations: list[str]

    @property
    def runs(self) -> int:
        """How many there were."""
        return sum(self.kinds.values())


def sweep(path: str, *, stride: int, jobs: int = 1) -> Tried:
    """Try all pairs, or those `stride` steps apart."""
    undisturbed = run(Plan(path, ()))
    tried: Sequence[Plan] = plans(path, undisturbed.steps, stride=stride)
    whole = undisturbed.body
    outcomes: Counter[str] = Counter()
    violations = []
    for outcome, wrong in spread(
        lambda number: _judged(tried[number], whole), len(tried), jobs
    ):
        outcomes[outcome] += 1
        violations += [wrong] if wrong else []
    return Tried(
        commit=commit(),
        stride=stride,
        steps=undisturbed.steps,
        kinds=dict(Counter(plan.kind for plan in tried)),
        outcomes=dict(sorted(outcomes.items())),
        violations=violations,
    )


def sweep_all(
    stride: int, jobs: int, record: Path | None = None
) -> Iterator[tuple[str, Tried]]:
    """Yield what each endpoint came to; what the file holds already is not repeated.

    :raises MisuseError: the file holds runs of another stride.
    """
    known = read_tried(record) if record is not None and record.exists() else {}
    if any(one.stride != stride for one in known.values()):
        raise MisuseError(f"expected runs of stride {stride} in {record}")
    with quiet():
        for path in SAID:
            if path not in known:
                known[path] = sweep(path, stride=stride, jobs=jobs)
                if record is not None:
                    document = msgspec.json.format(msgspec.json.encode(known), indent=1)
                    record.write_bytes(document + b"\n")
            yield path, known[path]


def read_tried(record: Path) -> dict[str, Tried]:
    """Read a file that `sweep_all` wrote."""
    return msgspec.json.decode(record.read_bytes(), type=dict[str, Tried])
