"""A circuit breaker for connecting: while it fails again and again, few try it.

Closed: every dial is made. Open, after `failures` in a row: none, until a time is over.
Half-open: one dial, the probe, decides; the others are refused until it has. This is
about dials only: connections that are open stay in use.
"""

from __future__ import annotations

from typing import Final, Literal

import trio
from loguru import logger

# A second at first: a server that restarts costs little. Then twice as long each time.
FIRST_S: Final = 1.0
LONGEST_S: Final = 30.0


CircuitState = Literal["closed", "open", "half-open"]


class CircuitOpenError(OSError):
    """No dial was made; `wait_s` is until there may be one."""

    def __init__(self, failures: int, wait_s: float) -> None:
        super().__init__(
            f"not tried: connecting has failed {failures} times in a row;"
            f" tried again in {wait_s:.1f} s"
        )
        self.wait_s = wait_s


class Circuit:
    """The state of one origin's dials; its clock is Trio's."""

    __slots__ = ("_failures", "_limit", "_open_s", "_probing", "_until")

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self._failures = 0
        self._open_s = 0.0  # none yet: closed
        self._until = 0.0
        self._probing = False

    @property
    def state(self) -> CircuitState:
        """Whether dials are made."""
        if not self._open_s:
            return "closed"
        return "half-open" if self._probing else "open"

    def enter(self) -> bool:
        """Let a dial pass; tell whether it is the probe.

        Each that passes ends with `succeeded`, `failed` or `abandoned`. Errors:
        `CircuitOpenError`.
        """
        if not self._open_s:
            return False
        left_s = self._until - trio.current_time()
        if self._probing or left_s > 0:
            raise CircuitOpenError(self._failures, max(left_s, FIRST_S))
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Note that a connection was made."""
        if self._open_s:
            logger.info(
                "connecting to upstream works again", event="upstream_circuit_closed"
            )
        self._failures = 0
        self._open_s = 0.0
        self._probing = False

    def failed(self, cause: str, *, probe: bool) -> None:
        """Note that a dial failed; open, if it was one too many."""
        self._failures += 1
        if probe:
            self._probing = False
        elif self._open_s or self._failures < self._limit:
            return
        self._open_s = min(2 * self._open_s, LONGEST_S) or FIRST_S
        self._until = trio.current_time() + self._open_s
        logger.warning(
            "connecting to upstream fails again and again; one tries it from time to"
            " time, other requests are refused at once",
            event="upstream_circuit_open",
            failures=self._failures,
            seconds=self._open_s,
            cause=cause,
        )

    def abandoned(self, *, probe: bool) -> None:
        """Note that nobody waits for a dial any more; another may be the probe."""
        if probe:
            self._probing = False
