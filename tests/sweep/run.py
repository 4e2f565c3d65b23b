"""One run: a scenario, a seed, and what befalls it where."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import trio
import trio.testing
from loguru import logger

from tests.sweep.causes import cause_named
from tests.sweep.injector import Injection, Injector, Survey, Tag
from tests.sweep.scenario import Scenario
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.token import Token
from tests.sweep.world import World
from trio_ai_stream.tracing import internals
from trio_ai_stream.tracing.instrument import TraceInstrument

PACKAGE: Final = "trio_ai_stream"


@dataclass(slots=True)
class Run:
    """A run that is over, with all that was seen of it."""

    token: Token
    world: World
    injector: Injector
    complaints: list[str] = field(default_factory=list)  # warnings, unraisables, errors

    @property
    def trace(self) -> list[Tag]:
        """Who stepped when, boundary by boundary."""
        return self.injector.trace

    @property
    def injections(self) -> list[Injection]:
        """What was done."""
        return self.injector.injections


def run_once(
    token: Token,
    *,
    survey: Survey | None = None,
    drawn: TraceInstrument | None = None,
) -> Run:
    """Run a token's program once; the same token gives the same run."""
    scenario = SCENARIOS[token.scenario]
    injections = [Injection(k, cause_named(name)) for k, name in token.acts]
    return run_scenario(scenario, token, injections, survey, drawn)


def run_scenario(
    scenario: Scenario,
    token: Token,
    injections: list[Injection],
    survey: Survey | None = None,
    drawn: TraceInstrument | None = None,
    *,
    at_s: float | None = None,
) -> Run:
    """Run a scenario with these injections; nothing that it raises is lost.

    With `at_s` the first one happens at that time instead of at its boundary. `drawn`
    draws the run and each act.
    """
    injector = Injector(injections, survey, drawn.note if drawn else None)
    instruments = [injector, drawn] if drawn else [injector]
    world = World(scenario, lambda: injector.tick)
    if at_s is not None:
        world.later = (at_s, lambda: injector.act_now(injections[0]))
    injector.world = world
    complaints: list[str] = []
    clock = trio.testing.MockClock(autojump_threshold=0)
    with internals.deterministic(token.seed), _listening(complaints):
        try:
            trio.run(world.run, clock=clock, instruments=instruments)
        except BaseExceptionGroup as exc:
            world.escaped.append(exc)
        except Exception as exc:
            world.escaped.append(exc)
    injector.shields.close(world.ended_at or 0.0)
    return Run(token, world, injector, complaints)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the program's logs, and keep the collector out, for many runs."""
    enabled = gc.isenabled()
    gc.disable()
    logger.disable(PACKAGE)
    try:
        yield
    finally:
        logger.enable(PACKAGE)
        if enabled:
            gc.enable()


class _Errors(logging.Handler):
    """Keeps what the program logs as an error: its own bugs, as it sees them."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        name = f" ({kind.__name__}: {record.exc_info[1]})" if kind else ""  # type: ignore[index]
        self._complaints.append(f"logged: {record.getMessage()}{name}")


@contextlib.contextmanager
def _listening(complaints: list[str]) -> Iterator[None]:
    """Collect warnings, exceptions that Python cannot raise, and logged errors."""
    hook = sys.unraisablehook

    def unraisable(args: Any) -> None:
        complaints.append(f"unraisable: {args.exc_type.__name__}: {args.exc_value}")

    root = logging.getLogger(PACKAGE)
    handler, propagate = _Errors(complaints), root.propagate
    sys.unraisablehook = unraisable
    root.addHandler(handler)
    root.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        complaints += [f"{one.category.__name__}: {one.message}" for one in caught]
    finally:
        root.propagate = propagate
        root.removeHandler(handler)
        sys.unraisablehook = hook
