"""One run: a program, a seed, and what is done at which boundary."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

import trio
import trio.testing

from trio_sweep import internals, resources
from trio_sweep.errors import RunFailedError, leaves
from trio_sweep.injector import Act, Injector, Seen, Survey
from trio_sweep.memory import DIALLED, MemoryStream
from trio_sweep.places import Site, is_machinery, name_of, note_opener, short
from trio_sweep.program import Program
from trio_sweep.threads import Lockstep
from trio_sweep.token import Token
from trio_sweep.trace import Trace

MOST_STEPS: Final = 100_000  # of a survey; other runs get twice the survey's and more
AFTER_S: Final = 60.0  # virtual seconds for `after`


@dataclass(frozen=True, slots=True)
class Ended:
    """How something ended that raised: as text, and the types of its leaves."""

    text: str
    types: tuple[type[BaseException], ...]

    @classmethod
    def by(cls, exc: BaseException) -> Ended:
        """Describe an exception without keeping it, because it keeps frames."""
        parts = list(leaves(exc))
        first = parts[0]
        places = [
            f"{short(frame.filename)}:{frame.lineno}"
            for frame in traceback.extract_tb(first.__traceback__)
            if not is_machinery(frame.filename)
        ]
        text = type(exc).__name__
        if first is not exc:
            text += f" of {' and '.join(type(one).__name__ for one in parts)}"
        # What follows explains at length, as when Trio's scopes are corrupted.
        said = str(first).partition("\n\n")[0]
        text += f": {said}" if said else ""
        text += f", raised at {places[-1]}" if places else ""
        return cls(text, tuple(type(one) for one in parts))

    def only(self, allowed: tuple[type[BaseException], ...]) -> bool:
        """Tell whether every leaf is of an allowed type."""
        return all(issubclass(one, allowed) for one in self.types)


@dataclass(slots=True)
class Run:
    """A run that is over, with all that was seen of it; it keeps no frame alive."""

    token: Token
    seen: Seen = field(default_factory=Seen)
    acts: list[Act] = field(default_factory=list)
    cancelled_at: float | None = None  # the body's scope, by an act
    left_at: float | None = None  # the body ended
    caught: bool = False  # the body's scope caught its Cancelled
    error: Ended | None = None  # of the body
    escaped: Ended | None = None  # of what surrounds it
    tasks_left: Counter[str] = field(default_factory=Counter)
    connections_left: int = 0
    generators_left: Counter[str] = field(default_factory=Counter)
    checked: list[str] = field(default_factory=list)
    unusable: str | None = None
    complaints: list[tuple[str, str]] = field(default_factory=list)
    threads_left: list[str] = field(default_factory=list)
    descriptors_left: list[str] = field(default_factory=list)
    connections_open: int = 0  # when the run was over


def run_once(
    program: Program,
    token: Token,
    *,
    survey: Survey | None = None,
    most_steps: int = MOST_STEPS,
    executed: set[Site] | None = None,
    tracer: Trace | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Run:
    """Run a token's program once; the same token gives the same run.

    `executed` collects the lines that ran, of the files that are in it with line 0.

    :raises KeyboardInterrupt: when the run was interrupted, or when it raised that.
    """
    run, lockstep = Run(token), Lockstep()
    injector = Injector(
        program,
        token,
        lockstep,
        most_steps=most_steps,
        survey=survey,
        tracer=tracer,
        stopping=stopping,
    )
    before = resources.descriptors(), resources.threads()
    with (
        resources.listening(run.complaints),
        internals.deterministic(token.seed),
        lockstep.installed(),
        internals.noting_scopes(note_opener),
        _lines(executed),
    ):
        contextvars.copy_context().run(_play, program, injector, run, tracer)
        injector.forget()
        run.seen, run.acts = injector.seen, injector.acts
        run.cancelled_at = injector.cancelled_at
        began = injector.scope is not None  # else the world itself failed
        if program.judge is not None and began and injector.error is None:
            arguments = (*program.arguments(injector.env), run)
            run.checked += _complaints("judge", program.judge, arguments)
        for act in run.acts:
            act.scope = None
        error, injector.env, injector.scope = injector.error, None, None
        gc.collect()
    if error is not None:
        raise RunFailedError(
            f"run {token}: a cause of the program raised {Ended.by(error).text}"
        ) from error
    if stopping():
        raise KeyboardInterrupt
    now = resources.descriptors()
    run.descriptors_left = [
        what for fd, what in now.items() if before[0].get(fd) != what
    ]
    threads = [
        name for one, name in resources.threads().items() if one not in before[1]
    ]
    run.threads_left = sorted({*lockstep.left, *threads})
    return run


def _play(program: Program, injector: Injector, run: Run, tracer: Trace | None) -> None:
    dialled: list[tuple[MemoryStream, internals.Task]] = []
    DIALLED.set(dialled)
    instruments: list[Any] = [injector] if tracer is None else [injector, tracer]
    try:
        trio.run(
            _main,
            program,
            injector,
            run,
            dialled,
            clock=trio.testing.MockClock(autojump_threshold=program.settle_s),
            instruments=instruments,
        )
    except BaseException as exc:  # noqa: ASYNC103  # judged later
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(exc)):
            raise KeyboardInterrupt from None  # noqa: ASYNC104
        if not injector.seen.hung:
            run.escaped = Ended.by(exc)
    run.connections_open = sum(not stream.closed for stream, _ in dialled)


async def _main(
    program: Program,
    injector: Injector,
    run: Run,
    dialled: list[tuple[MemoryStream, internals.Task]],
) -> None:
    async with trio.open_nursery() as root:
        injector.root = root.cancel_scope
        world = program.world or contextlib.nullcontext
        async with world() as env:
            injector.env = env
            arguments = program.arguments(env)
            await trio.testing.wait_all_tasks_blocked()
            generators = Counter(internals.living_async_generators())
            over = trio.Event()
            root.start_soon(_body, program, arguments, injector, run, over, name="body")
            await over.wait()
            await trio.testing.wait_all_tasks_blocked()
            mine = injector.body_tasks
            run.tasks_left = Counter(
                name_of(task) for task in mine if not internals.over(task)
            )
            run.connections_left = sum(
                not stream.closed for stream, task in dialled if task in mine
            )
            living = Counter(internals.living_async_generators())
            run.generators_left = living - generators
            if not injector.seen.hung:
                await _afterwards(program, arguments, run)
        root.cancel_scope.cancel(reason="the run is over")
    # An instrument that fails is removed by Trio; its run would then mean nothing.
    trio.lowlevel.remove_instrument(injector)


async def _body(
    program: Program,
    arguments: tuple[object, ...],
    injector: Injector,
    run: Run,
    over: trio.Event,
) -> None:
    injector.body_tasks.add(trio.lowlevel.current_task())
    try:
        with trio.CancelScope() as scope:
            injector.scope = scope
            try:
                await program.body(*arguments)
            finally:
                run.left_at = trio.current_time()
        run.caught = scope.cancelled_caught
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: ASYNC103  # it is judged afterwards
        run.error = Ended.by(exc)
        if injector.seen.hung:
            raise
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(exc)):
            raise
    finally:
        over.set()


async def _afterwards(
    program: Program, arguments: tuple[object, ...], run: Run
) -> None:
    """Check the state, then use the program once more."""
    if program.check is not None:
        run.checked = _complaints("check", program.check, arguments)
    if program.after is not None:
        try:
            with trio.fail_after(AFTER_S):
                await program.after(*arguments)
        except Exception as exc:
            run.unusable = Ended.by(exc).text


def _complaints(
    name: str,
    function: Callable[..., Iterable[str] | str | None],
    arguments: tuple[object, ...],
) -> list[str]:
    """Return what a function of the program complains of, be it by raising."""
    try:
        found = function(*arguments)
        if found is None:
            return []
        return [found] if isinstance(found, str) else [str(one) for one in found]
    except Exception as exc:
        return [f"{name} itself raised {Ended.by(exc).text}"]


@contextlib.contextmanager
def _lines(executed: set[Site] | None) -> Iterator[None]:
    """Collect the lines that run meanwhile, of the files that were asked for."""
    if executed is None:
        yield
        return
    files = {path for path, line in executed if line == 0}
    before = sys.gettrace()

    def in_frame(frame: FrameType, event: str, _argument: Any) -> Any:
        path = frame.f_code.co_filename
        if path not in files:
            return None
        if event == "line":
            executed.add((path, frame.f_lineno))
        return in_frame

    sys.settrace(in_frame)
    try:
        yield
    finally:
        sys.settrace(before)
