"""Progress on a terminal, and silence anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console


class Progress:
    """A bar for a known number of steps, a spinner (``None``) for other work."""

    def __init__(self, title: str, total: int | None) -> None:
        """Nothing is drawn before the block is entered."""
        self._title = title
        self._total = total
        self._console = Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task: rich.progress.TaskID | None = None

    def advance(self, detail: str = "") -> None:
        """One step is done; ``detail`` says which."""
        assert self._task is not None
        description = f"{self._title}: {detail}" if detail else self._title
        self._bar.update(self._task, advance=1, description=description)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        self._bar.stop()
