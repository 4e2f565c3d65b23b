"""A stream is left at one step and come back to at a later one: at all steps.

A step is one turn of one task, of any part of the application. In the same step the
client is found gone, or its next request arrives, or another cause ends the stream.
`python -m tests.sweep --full` tries every pair, `--resume N` each N-th step with each
N-th; the test of the same name some.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from trio_ai_stream.http.application import Application
from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.wire.dialect import EventEncoder
from trio_ai_stream.wire.events import Item
from trio_ai_stream.wire.record import Outcome, Record
from trio_sweep import MisuseError, internals
from trio_sweep.parallel import spread

GRACE_S: Final = 5.0
PLAIN: Final = "plain"
STREAMS: Final = {
    PLAIN: "simulator/default?chunks=3&delay_ms=10",
    "silent": "simulator/fast?chunks=2&first_token_ms=4500",  # with a heartbeat
    "retried": "simulator/flaky?fail_times=1&chunks=2&delay_ms=10",
    "failing": "simulator/error?at=2",
    "agent": "simulator/agent?reasoning=2&preface=1&tool_calls=1&chunks=1",
    "full": "simulator/default?chunks=3&delay_ms=10",  # with a log for an event or two
}
_SMALL_LOG: Final = 150
CAUSES: Final = {
    "delete": Outcome.CANCELLED,
    "drain": Outcome.SHUTDOWN,
    "deadline": Outcome.DEADLINE_EXCEEDED,
    "first_token": Outcome.FIRST_TOKEN_TIMEOUT,
    "idle": Outcome.STREAM_IDLE_TIMEOUT,
    "break": Outcome.UPSTREAM_FAILED,
    "bug": Outcome.INTERNAL_ERROR,
    "reader_bug": Outcome.INTERNAL_ERROR,
}
_STOPS: Final = ("delete", "drain")
_BUDGETS: Final = ("deadline", "first_token", "idle")
_BUGS: Final = {"bug", "reader_bug"}
_LOST: Final = {Outcome.CLIENT_DISCONNECTED, Outcome.CLIENT_STALLED}
_ID: Final = re.compile(rb"^id: (\d+)\n", re.MULTILINE)
# Only who is there is told that the stream is alive, so it is no part of the stream.
_LIFE: Final = re.compile(
    rb"^(?::[^\n]*|event: (?:ping|keepalive)\ndata: .*)\n\n", re.MULTILINE
)
# The write of the terminal event, and what is read behind an answer.
_ENDING_S: Final = BUDGETS.write_s + REUSE_S
_AWAY_S: Final = GRACE_S + 1  # the end of the grace is among the steps
LONGEST_S: Final = 2 * _AWAY_S + _ENDING_S


@dataclass(frozen=True, slots=True)
class Plan:
    """At which steps what happens: `detach`, `stall`, `attach`, or a cause."""

    path: str
    acts: tuple[tuple[int, str], ...]
    stream: str = PLAIN

    @property
    def kind(self) -> str:
        """What happens, beside a loss and a return."""
        names = [act for _, act in self.acts]
        causes = [act for act in names if act in CAUSES]
        if causes:
            return causes[0]
        return "a second loss" if names.count("detach") > 1 else "".join(names[:1])


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to; `decided` is the outcome that an act had the stream take.

    `meets` is, for each step, what would change something if it came before it.
    """

    steps: int
    body: bytes  # what all connections brought
    last: Visit
    records: list[Record]
    decided: Outcome | None
    again: bytes  # the same request's answer, asked once more
    kept: int  # connections to upstream, at the end of that
    meets: list[frozenset[str]]
    took_s: float
    complaints: list[str]


class Client:
    """One client over its connections."""

    def __init__(self, w: World, plan: Plan, name: str = NAME) -> None:
        self.w = w
        self._options = {"may_fail": plan.kind == "reader_bug"}
        self.visits = [
            w.visit(
                {"model": STREAMS[plan.stream], **SAID[plan.path]},
                plan.path,
                **self._options,
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
            options: Any = {"method": "GET", "query": query, **self._options}
            self.visits.append(self.w.visit(b"", path, headers=headers, **options))
            self.attached = True

    def meets(self) -> frozenset[str]:
        """Return what would find something to act upon now."""
        found = set[str]()
        stream = self.w.services.registry.get(NAME)
        if stream is not None:
            found |= {cause for cause in _BUDGETS if cause in stream.scopes}
            found |= {"break", "bug", "reader_bug"}
            if stream.ending is None:
                found |= {*_STOPS}
        if "x-stream-resume" in self.visits[0].headers and not self.attached:
            found.add("attach")
        return frozenset(found)

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
        elif cause in _BUGS:
            resumable = self.w.services.resumables._known.get(NAME)
            if resumable is not None and cause == "bug":
                resumable.encoder = Broken(resumable.encoder)
            elif resumable is not None and resumable.reader is not None:
                resumable.reader.receive = fail  # type: ignore[method-assign]
        else:
            for upstream in self.w.upstreams:
                upstream.cancel(reason="upstream breaks")


async def fail() -> bytes:
    """Be a mistake of ours."""
    raise RuntimeError("a bug of ours")


class Broken:
    """An encoder with a mistake of ours, for whatever comes next."""

    def __init__(self, encoder: EventEncoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def content(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """Fail."""
        raise RuntimeError("a bug of ours")


async def _undergo(plan: Plan, stage: Application, probing: bool) -> Run:
    """Run one plan to its end, then ask the same once more."""
    async with world(stage=stage) as w:
        if plan.stream == "full":
            w.services.resumables.log_bytes = _SMALL_LOG
        watch = Watch(w)
        with watch.listening():
            client = Client(w, plan)
            meets: list[frozenset[str]] = []
            if probing:
                watch.on_step = lambda: meets.append(client.meets())
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
                        await trio.sleep(_AWAY_S)
            steps, watch.on_step = watch.steps, None
            watch.plan(())  # what would come later than that never comes
            took_s = trio.current_time() - began_at
            await trio.sleep(2 * GRACE_S + 1)
            body, last = client.body, client.visits[-1]
            again = Client(w, plan, "again")
            await again.visits[0].over.wait()
            await trio.sleep(2 * GRACE_S + 1)
            kept = watch.look_back()
            w.assert_clean()
            resumables = w.services.resumables
            if len(resumables) or resumables.budget.held or w.services.request_ids:
                watch.complain("I4: a log, its bytes or an id is held")
            if any(visit.overlaps for visit in client.visits):
                watch.complain("I3: two writes to one client at a time")
        if not client.attached:  # what it was sent after it had left, it never had
            last.ended = trio.Event()
        return Run(
            steps,
            body,
            last,
            [record for record in w.records if record.request_id == NAME],
            client.decided,
            again.body.replace(b'"again"', b'"%s"' % NAME.encode()),
            kept,
            meets,
            took_s,
            watch.complaints,
        )


@functools.cache
def _stage() -> Application:
    """Return an application whose routes are compiled, for all runs of a process."""

    async def made() -> Application:
        async with world() as w:
            return w.app

    return trio.run(made, clock=MockClock(autojump_threshold=0))


def run(plan: Plan, *, probing: bool = False) -> Run:
    """Run one plan on a mock clock of its own, with tasks always in the same order."""
    stage = _stage()
    with internals.deterministic(0):
        clock = MockClock(autojump_threshold=0)
        return trio.run(_undergo, plan, stage, probing, clock=clock)


def judge(plan: Plan, undisturbed: Run) -> str:
    """Return what is wrong with a run of the plan; nothing if all is well."""
    return _judged(plan, undisturbed)[1]


def _judged(plan: Plan, undisturbed: Run) -> tuple[str, str]:
    """Return how the stream ended, and what is wrong."""
    try:
        lived = run(plan)
    except Exception as exc:
        return "", f"{plan}: {exc!r}"
    outcomes = ", ".join(record.outcome for record in lived.records) or "no stream"
    problems = list(_problems(plan, lived, undisturbed))
    return outcomes, f"{plan}: {'; '.join(problems)}" if problems else ""


def _problems(plan: Plan, lived: Run, undisturbed: Run) -> Iterator[str]:
    acts, whole = {act for _, act in plan.acts}, said(undisturbed.body)
    for complaint in lived.complaints:
        if not (acts & _BUGS and complaint.startswith("I10: logged")):
            yield complaint
    # That upstream closed a kept connection, only using it shows, as pipes in memory
    # are: then the next request fails, and has none to keep.
    if "break" not in acts:
        if said(lived.again) != whole:
            yield "I12: asked again, it is not the undisturbed stream"
        if lived.kept != undisturbed.kept:
            yield f"I8: {lived.kept} connections are kept, not {undisturbed.kept}"
    if lived.took_s > undisturbed.took_s + LONGEST_S:
        yield f"it took {lived.took_s:.1f} s"
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
    natural = undisturbed.records[0].outcome
    yield from _outcome(plan, record, lived.decided, natural)
    body = said(lived.body)
    heard = last.ended.is_set() and last.status in {200, 204}
    if record.outcome in {Outcome.COMPLETED, natural} and not _caused(plan, record):
        if heard and body != whole:
            yield f"not the undisturbed stream: {body!r}"
    elif heard and last.status == 200:
        terminal = len(TERMINAL[plan.path].findall(body))
        if terminal != 1:
            yield f"I3: {terminal} terminal events"
        body = body[: body.rstrip(b"\n").rfind(b"\n\n") + 2]  # all but the last event
    if not whole.startswith(body):
        yield f"not the beginning of the undisturbed stream: {body!r}"
    late = record.cancel_latency_s
    if late:
        yield f"I1: upstream was closed {late} s after the cause"
    if record.ending_s > _ENDING_S:
        yield f"it was over {record.ending_s} s after its end was decided"


def said(body: bytes) -> bytes:
    """Return what was said: no ids, no signs of life, nothing of one run alone."""
    return _LIFE.sub(b"", _ID.sub(b"", VARYING.sub(b"", body)))


def _caused(plan: Plan, record: Record) -> bool:
    """Whether the outcome may be that of a cause."""
    return any(CAUSES.get(act) is record.outcome for _, act in plan.acts)


def _outcome(
    plan: Plan, record: Record, decided: Outcome | None, natural: Outcome
) -> Iterator[str]:
    """I6: the outcome is that of a cause, and that of the one that decided."""
    acts = {act for _, act in plan.acts}
    expected = {CAUSES[act] for act in acts if act in CAUSES}
    expected |= {natural, Outcome.ABANDONED} | _LOST
    if plan.stream == "retried":  # it failed once, and no time was left to ask again
        expected |= {Outcome.UPSTREAM_REJECTED, Outcome.UPSTREAM_FAILED}
    if decided is not None:
        expected = {decided}
    if record.outcome not in expected:
        yield f"I6: {record.outcome}, expected {sorted(expected)}"
    if record.outcome in _LOST and record.events:
        yield f"I6: {record.outcome} of a stream that has a grace and had begun"
    if record.outcome is Outcome.ABANDONED and not acts & {"detach", "stall"}:
        yield "I6: abandoned, and nobody left"


def plans(about: Plan, j: int, steps: int, *, stride: int) -> tuple[list[Plan], int]:
    """Return what is tried of a loss before step j, and how much need not be.

    That is each cause alone; and a return at each later step: with each other cause
    halfway, with a client that is found not to read, with a second loss, and with a bug
    behind the return. An act that would meet nothing leaves the run as it is without
    it, and that one is tried.
    """
    left, stalled = (j, "detach"), (j, "stall")

    def meets(act: tuple[int, str]) -> list[frozenset[str]]:
        return run(replace(about, acts=(act,)), probing=True).meets

    seen = {act: meets(act) for act in (left, stalled)}

    def met(first: tuple[int, str], step: int, act: str) -> bool:
        return step <= len(seen[first]) and act in seen[first][step - 1]

    made: list[tuple[tuple[int, str], ...]] = [((j, cause),) for cause in CAUSES]
    made += [(left,), (stalled,)]
    alike = 0
    for k in range(j + 1, steps + 40, stride):
        back, middle = (k, "attach"), (j + k) // 2
        causes = [x for x in CAUSES if x != "reader_bug" and middle > j]
        wanted: list[tuple[tuple[int, str], ...]] = [
            (left, (middle, x), back) for x in causes if met(left, middle, x)
        ]
        if met(left, *back):
            wanted.append((left, back))
            wanted.append((left, back, (k + 7, "detach"), (k + 19, "attach")))
            wanted.append((left, back, (k + 7, "reader_bug")))
        if met(stalled, *back):
            wanted.append((stalled, back))
        made += wanted
        alike += len(causes) + 4 - len(wanted)
    return [replace(about, acts=acts) for acts in made], alike


class Tried(msgspec.Struct, kw_only=True):
    """What the runs of one endpoint and stream came to, `stride` steps apart.

    `through` is the last step of a loss that was tried. `kinds` counts the runs by what
    happens beside one loss and one return, `outcomes` by how the stream ended. So many
    more are `alike`: one of their acts met nothing, so they are other runs again.
    """

    commits: list[str]
    stride: int
    steps: int
    through: int = 0
    kinds: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    alike: int = 0
    violations: list[str] = []

    @property
    def runs(self) -> int:
        """How many there were."""
        return sum(self.kinds.values())

    @property
    def whole(self) -> bool:
        """Whether each step has been tried, or each N-th."""
        return 0 < self.through > self.steps - self.stride


def sweep(
    about: Plan,
    *,
    stride: int,
    jobs: int = 1,
    known: Tried | None = None,
    over: Callable[[Tried], None] = lambda _tried: None,
) -> Tried:
    """Try all pairs, or those `stride` steps apart; go on where `known` ends.

    `over` is called with what there is, after each step of a loss.
    """
    undisturbed = run(about)
    found = known or Tried(commits=[], stride=stride, steps=undisturbed.steps)
    now = commit()
    if now not in found.commits:
        found.commits.append(now)
    kinds, outcomes = Counter(found.kinds), Counter(found.outcomes)
    first = found.through + stride if found.through else 1
    for j in range(first, found.steps + 1, stride):
        tried, alike = plans(about, j, found.steps, stride=stride)
        verdicts = spread(partial(_nth, tried, undisturbed), len(tried), jobs)
        for plan, (outcome, wrong) in zip(tried, verdicts, strict=True):
            kinds[plan.kind] += 1
            outcomes[outcome] += 1
            found.violations += [wrong] if wrong else []
        found.kinds = dict(sorted(kinds.items()))
        found.outcomes = dict(sorted(outcomes.items()))
        found.alike += alike
        found.through = j
        over(found)
    return found


def _nth(tried: Sequence[Plan], undisturbed: Run, number: int) -> tuple[str, str]:
    return _judged(tried[number], undisturbed)


def sweep_all(
    stride: int,
    jobs: int,
    record: Path | None = None,
    streams: Iterable[str] = (PLAIN,),
) -> Iterator[tuple[str, Tried]]:
    """Yield what each endpoint came to with each of the streams.

    The file is written after each step of a loss, and what it holds is not repeated.

    :raises MisuseError: the file holds runs of another stride.
    """
    all_known = read_tried(record) if record is not None and record.exists() else {}

    def write(name: str, tried: Tried) -> None:
        all_known[name] = tried
        if record is not None:
            document = msgspec.json.format(msgspec.json.encode(all_known), indent=1)
            new = record.with_suffix(".new")
            new.write_bytes(document + b"\n")
            new.replace(record)

    with quiet():
        for stream in streams:
            for path in SAID:
                name = f"{path} {stream}"
                known = all_known.get(name)
                if known is None or not known.whole:
                    if known is not None and known.stride != stride:
                        raise MisuseError(f"expected stride {stride} in {record}")
                    sweep(
                        Plan(path, (), stream),
                        stride=stride,
                        jobs=jobs,
                        known=known,
                        over=partial(write, name),
                    )
                yield name, all_known[name]


def read_tried(record: Path) -> dict[str, Tried]:
    """Read a file that `sweep_all` wrote."""
    return msgspec.json.decode(record.read_bytes(), type=dict[str, Tried])
