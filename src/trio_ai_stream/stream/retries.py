"""When a stream may ask upstream again: the one policy, for all streams of a process.

Rule 1: only what upstream has not worked on is sent again (`Problem.resend`), and only
before anything of an answer has come. What that is, `upstream_errors.py` decides.
Rule 2: a stream tries at most `ATTEMPTS` times, and waits as long as upstream asks or
not at all.
Rule 3: all streams together have a budget. When upstream fails for everybody, tries of
each stream would multiply the load that it fails under.
Rule 4: no two streams wait for the same time, also after the same Retry-After.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Final

import trio
from loguru import logger

from trio_ai_stream.stream.lifecycle import EndStream

# One try and two more: OpenRouter has already tried its other providers by itself.
ATTEMPTS: Final = 3
# A Retry-After beyond this is the client's to wait for, not ours.
MAX_RETRY_AFTER_S: Final = 10.0
WINDOW_S: Final = 10.0
# The first wait is somewhere between these, each further one up to twice as long.
MIN_WAIT_S: Final = 0.1
MAX_WAIT_S: Final = 1.0


class RetryBudget:
    """How many retries there may be: a share of the requests, and a floor.

    In this window of `WINDOW_S` and the one before there may be as many as `share` of
    the requests in both, and `floor` more. One clock, Trio's.
    """

    __slots__ = ("_before", "_began_at", "_floor", "_now", "_share")

    def __init__(self, *, share: float, floor: int) -> None:
        self._share = share
        self._floor = floor
        self._began_at = 0.0
        self._now = [0, 0]  # requests, retries
        self._before = [0, 0]

    def note_request(self, now: float) -> None:
        """Count a stream's first try."""
        if now - self._began_at >= WINDOW_S:
            self._turn(now)
        self._now[0] += 1

    def take(self, now: float) -> bool:
        """Take one retry, if there is one left."""
        if now - self._began_at >= WINDOW_S:
            self._turn(now)
        requests = self._now[0] + self._before[0]
        retries = self._now[1] + self._before[1]
        if retries + 1 > self._share * requests + self._floor:
            return False
        self._now[1] += 1
        return True

    def _turn(self, now: float) -> None:
        follows = now - self._began_at < 2 * WINDOW_S
        self._before = self._now if follows else [0, 0]
        self._now = [0, 0]
        self._began_at = now


class Retries:
    """Decides after each failure whether and when a stream tries again.

    `on_denied` is called when the budget is the only reason for not doing so.
    """

    __slots__ = ("_budget", "_on_denied")

    def __init__(self, budget: RetryBudget, on_denied: Callable[[], None]) -> None:
        self._budget = budget
        self._on_denied = on_denied

    def note_request(self) -> None:
        """Count a stream's first try."""
        self._budget.note_request(trio.current_time())

    def wait_s(
        self, failure: EndStream, *, attempts: int, left_s: float
    ) -> float | None:
        """Return how long to wait before the next try, None if there is none.

        `attempts` have been made; `left_s` is left for the first content. What the
        client is told says then whether the tries are spent.
        """
        problem = failure.problem
        if problem is None:
            return None
        spent = attempts > 1
        asked_s = problem.retry_after or 0.0
        if problem.resend and attempts < ATTEMPTS and asked_s <= MAX_RETRY_AFTER_S:
            longest_s = MAX_WAIT_S * 2 ** (attempts - 1)
            wait_s = asked_s + random.uniform(MIN_WAIT_S, longest_s)  # noqa: S311
            if wait_s < left_s:
                if self._budget.take(trio.current_time()):
                    _log(failure, attempts, wait_s)
                    return wait_s
                spent = True
                self._on_denied()
        failure.problem = dataclasses.replace(problem, spent=spent)
        return None


def _log(failure: EndStream, attempts: int, wait_s: float) -> None:
    logger.warning(
        "upstream failed before the first content; trying again",
        event="stream_retried",
        attempt=attempts + 1,
        wait_ms=round(wait_s * 1000),
        cause=str(failure),
    )
