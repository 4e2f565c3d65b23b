"""A value that fits a JSON schema, for tool arguments and structured answers.

Pure, and generous: what it does not understand becomes a string, because a client
that sends a schema wants to see its own decoding work, not ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEEPEST = 8  # a schema that refers to itself must end somewhere


def sample(schema: Any, depth: int = 0) -> Any:
    """Return one value for a JSON schema (type, enum, const, properties, items)."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return "sample"
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return {}
        return {str(key): sample(part, depth + 1) for key, part in properties.items()}
    if kind == "array":
        return [sample(schema.get("items"), depth + 1)]
    plain: dict[Any, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return plain.get(kind, "sample") if isinstance(kind, str) else "sample"
