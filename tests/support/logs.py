"""What is logged while a block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loguru import logger


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    """Give the fields of each record, `message` and `level` among them."""
    records: list[dict[str, Any]] = []

    def note(message: Any) -> None:
        record = message.record
        told = {"message": record["message"], "level": record["level"].name}
        records.append({"event": None, **record["extra"], **told})

    number = logger.add(note, level="DEBUG")
    try:
        yield records
    finally:
        logger.remove(number)
