"""JSON documents that the server answers with, besides streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Struct


class ModelDocument(Struct, frozen=True):
    """One model; upstream's further fields are passed on."""

    id: str
    object: str
    created: int
    owned_by: str


class _Entry(Struct):
    id: str
    created: int = 0


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models by id, and the document that lists them."""

    models: dict[str, dict[str, Any]]
    document: bytes


_decoder = msgspec.json.Decoder(dict[str, Any])


def model_list(body: bytes) -> ModelList:
    """Read upstream's `GET /models` and give it OpenAI's shape.

    :raises ValueError: when it is no list of models.
    """
    models: dict[str, dict[str, Any]] = {}
    document = _decoder.decode(body)
    for fields in msgspec.convert(document.get("data"), list[dict[str, Any]]):
        entry = msgspec.convert(fields, _Entry)
        owner = entry.id.lstrip("~").partition("/")[0]
        shape = ModelDocument(entry.id, "model", entry.created, owner)
        models[entry.id] = {**msgspec.to_builtins(shape), **fields, "object": "model"}
    document |= {"object": "list", "data": list(models.values())}
    return ModelList(models, msgspec.json.encode(document))


class ErrorDocument(Struct, frozen=True):
    """A refusal, or a mistake of the server's."""

    message: str
    code: int
    error_type: str
    request_id: str
    timestamp: str


class StreamDocument(Struct, frozen=True):
    """One live stream. Times are in seconds; `outcome` is there once it is ending.

    The state is `detached`, and `detached_s` there, while its client is gone and may
    come back.
    """

    id: str
    client: str
    model: str
    endpoint: str
    state: str
    age_s: float
    first_content_s: float | None
    attempts: int
    events: int
    bytes: int
    outcome: str | None
    detached_s: float | None = None


class Cancellation(Struct, frozen=True):
    """What a cancel did.

    `state` is where the stream was; `upstream_closed_ms` the time from the cancel until
    its upstream connection was closed, null if there was none yet.
    """

    id: str
    outcome: str
    state: str
    events: int
    upstream_closed_ms: float | None


class Health(Struct, frozen=True):
    """The process is alive."""

    status: Literal["ok"]
    version: str
    upstream: Literal["openrouter", "simulator"]
    live_streams: int


class Readiness(Struct, frozen=True):
    """Whether the server takes new streams, and if not, why.

    `limits` says where they are counted: in this process, in Valkey or Redis, or by
    the fallback because that is out of reach. `circuit` is open while connecting to
    upstream fails again and again; such a server is ready all the same, because its
    fellows fare no better.
    """

    status: Literal["ready", "not ready"]
    reasons: list[str]
    limits: Literal["local", "shared", "fallback"]
    circuit: Literal["closed", "open", "half-open"] = "closed"
