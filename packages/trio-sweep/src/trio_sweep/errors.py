"""What can go wrong with a sweep itself, as opposed to the program that it sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_sweep.report import Report


class MisuseError(ValueError):
    """The sweep cannot do what it was asked, or it would prove nothing."""


class TokenError(MisuseError):
    """A text is no replay token, or its token means no run of this program."""


class TrioChangedError(RuntimeError):
    """The private parts of this version of Trio are not those that are known here."""


class RunFailedError(RuntimeError):
    """A run could not be made; the text says which one, and why."""


class ViolationsError(AssertionError):
    """A sweep found something; the text is its report."""


class SweepInterruptedError(KeyboardInterrupt):
    """Ctrl-C ended a sweep; `report` holds what had been found until then."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that a group holds at any depth, or the one itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc
