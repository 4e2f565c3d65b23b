"""JSON Schemas of types, the same on every Python."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec


def components(
    types: Iterable[Any], ref_template: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return each type's schema and, by name, those that they refer to.

    Python 3.13 and newer take the indentation out of docstrings, older ones do not.
    """
    found, named = msgspec.json.schema_components(types, ref_template=ref_template)
    for schema in named.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return list(found), named
