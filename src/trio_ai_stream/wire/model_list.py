"""Upstream's list of models in OpenAI's shape; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct


class ModelDocument(Struct, frozen=True):
    """One model; upstream's further fields are passed on."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelListDocument(Struct, frozen=True):
    """All models that upstream lists."""

    object: str
    data: list[ModelDocument]


class _Entry(Struct):
    id: str
    created: int = 0


class _Entries(Struct):
    data: list[dict[str, Any]]


_further = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models by id, and the document that lists them."""

    models: dict[str, dict[str, Any]]
    document: bytes


_decoder = msgspec.json.Decoder(_Entries)


def model_list(body: bytes) -> ModelList:
    """Read upstream's `GET /models` and give it OpenAI's shape.

    :raises ValueError: when it is no list of models.
    """
    models: dict[str, dict[str, Any]] = {}
    for fields in _decoder.decode(body).data:
        entry = msgspec.convert(fields, _Entry)
        owner = entry.id.lstrip("~").partition("/")[0]
        shape = ModelDocument(entry.id, "model", entry.created, owner)
        models[entry.id] = {**msgspec.to_builtins(shape), **fields, "object": "model"}
    further = _further.decode(body)
    document = {**further, "object": "list", "data": list(models.values())}
    return ModelList(models, msgspec.json.encode(document))
