"""Every scenario as a program of `trio_sweep`: `tests.sweep.programs:NAME`."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from loguru import logger

from tests.sweep.causes import sweep_causes
from tests.sweep.invariants import violations
from tests.sweep.judged import Judged
from tests.sweep.scenario import Scenario
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.world import World
from trio_ai_stream.stream.budgets import REUSE_S
from trio_sweep import Program
from trio_sweep.run import Run

PACKAGE = "trio_ai_stream"


def judge(world: World, run: Run) -> Iterable[str]:
    """Return which of the gateway's invariants do not hold."""
    return () if run.seen.hung else violations(Judged.of(world, run))


def program(
    scenario: Scenario, prepare: Callable[[World], None] | None = None
) -> Program:
    """Return a scenario's program; `prepare` is called with the world of each run."""

    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[World]:
        made = World(scenario)
        if prepare is not None:
            prepare(made)
        async with made.serving():
            yield made

    return Program(
        World.serve_target,
        world,
        World.look_and_ask_again,
        observe=World.observe,
        causes=sweep_causes(),
        judge=judge,
        shield_limit_s=REUSE_S,
    )


def __getattr__(name: str) -> Program:
    if name not in SCENARIOS:
        raise AttributeError(name)
    return program(SCENARIOS[name])


@contextlib.contextmanager
def quiet() -> Any:
    """Keep the program's log out of many runs; its errors still reach the sweep.

    What was left to the collector before them (coredis' queues) is no run's either.
    """
    gc.collect()
    logger.disable(PACKAGE)
    log = logging.getLogger(PACKAGE)
    try:
        yield log
    finally:
        logger.enable(PACKAGE)
