"""Writes the API's description: `openapi.json` and the page that shows it.

`python -m scripts.openapi` writes both into the package; the server only serves them.
tests/http/test_openapi.py holds them to the models and to the routes.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts import openapi_documents
from scripts.json_schemas import components
from trio_ai_stream.dialects import completions, messages, plain_chat
from trio_ai_stream.dialects.catalogue import dialect_of
from trio_ai_stream.dialects.plain_chat import ChatRequest
from trio_ai_stream.http import documentation
from trio_ai_stream.http.auth import PROBES
from trio_ai_stream.wire import documents
from trio_ai_stream.wire.documents import ModelDocument
from trio_ai_stream.wire.model_requests import (
    CompletionRequest,
    MessagesRequest,
    ResponsesRequest,
)

_FOLDER: Final = Path(documentation.__file__).parent
DOCUMENT: Final = _FOLDER / "openapi.json"
PAGE: Final = _FOLDER / "openapi.html"
_REF: Final = "#/components/schemas/{name}"
_EVENTS: Final = "text/event-stream"
_JSON: Final = "application/json"
# OpenAPI 3.1 has no word for what an event is (3.2 has `itemSchema`), and readers
# disagree whether a schema means the text or each event: so there is none.
_TEXT: Final[dict[str, Any]] = {"schema": {}}
# What a refusal holds, by what writes it.
REFUSALS: Final[dict[Any, type]] = {
    plain_chat.error: documents.ErrorDocument,
    completions.openai_error: openapi_documents.OpenAIErrorDocument,
    messages.error_response: openapi_documents.AnthropicErrorDocument,
}


class Operation(NamedTuple):
    """One method of one path, as the document describes it."""

    method: str
    path: str
    summary: str
    description: str = ""
    request: type | None = None
    response: type | None = None
    statuses: tuple[int, ...] = (200,)
    text: str = ""
    text_types: tuple[str, ...] = (_EVENTS,)


OPERATIONS: Final = (
    Operation(
        "post",
        "/chat",
        "Stream one answer.",
        "Leaving ends everything that the request started, upstream's work included.",
        request=ChatRequest,
        text="Events of type `connected`, `content`, `reasoning`, `tool_call`, and at"
        " last `done` or `error`, each a JSON object with `content`, `request_id` and"
        " `type`.",
    ),
    Operation(
        "get",
        "/health",
        "Say that the process is alive; needs no key.",
        response=documents.Health,
    ),
    Operation(
        "get",
        "/metrics",
        "Report the metrics of all workers; for operators.",
        text="Metrics in Prometheus' text format, or in OpenMetrics' if that is"
        " accepted.",
        text_types=("text/plain", "application/openmetrics-text"),
    ),
    Operation(
        "get",
        "/ready",
        "Say whether the server takes new streams; needs no key.",
        response=documents.Readiness,
        statuses=(200, 503),
    ),
    Operation(
        "get",
        "/streams",
        "List the live streams that the caller may see: its own, or all.",
        "`complete` is false if a process did not answer in time.",
        response=openapi_documents.StreamList,
    ),
    Operation(
        "get",
        "/streams/live",
        "Watch the live streams of this process as trees of tasks and deadlines.",
        text="Events of type `snapshot`, `ended` and at last `bye`.",
    ),
    Operation(
        "delete",
        "/streams/{request_id}",
        "Cancel a live stream; its own client gets an error, type `cancelled`.",
        response=documents.Cancellation,
    ),
    Operation(
        "get",
        "/streams/{request_id}/events",
        "Go on with a stream that was begun with `X-Stream-Grace`.",
        "The path is that of `X-Stream-Resume`, with its `token`. `Last-Event-ID`, or"
        " `after` in the query, is the id of the last event that the client has. A 204"
        " says that there is no more.",
        text="The events behind that one, as the stream's own endpoint writes them.",
    ),
    Operation(
        "get",
        "/usage",
        "Sum up what streams have cost, by key, user, model, provider, outcome, day.",
        "In the query: `by`, `since`, `until`, `key`, `user`, `model`, `provider`,"
        " `outcome`, `hosts` (`all` or `own`), and `format` (`json` or `csv`)."
        " Another name is refused.",
        response=openapi_documents.UsageDocument,
        text="With `format=csv` the same as a table.",
        text_types=("text/csv",),
    ),
    Operation(
        "post",
        "/v1/chat/completions",
        "Complete a chat, as OpenAI's API does it.",
        "Fields that are not named here reach upstream unchanged.",
        request=CompletionRequest,
        response=openapi_documents.CompletionDocument,
        text="Without `stream` upstream's answer as one document; with it upstream's"
        " chunks, and at last `[DONE]` or a chunk with `error`.",
    ),
    Operation(
        "post",
        "/v1/messages",
        "Create a message, as Anthropic's API does it.",
        "Fields that are not named here reach upstream unchanged.",
        request=MessagesRequest,
        response=openapi_documents.MessageDocument,
        text="Without `stream` upstream's message as one document; with it upstream's"
        " events, and at last `message_stop` or `error`.",
    ),
    Operation(
        "post",
        "/v1/messages/count_tokens",
        "Count the tokens of a message, as Anthropic's API does it.",
        request=MessagesRequest,
        response=openapi_documents.TokenCount,
    ),
    Operation(
        "post",
        "/v1/responses",
        "Create a response, as OpenAI's API does it.",
        "Fields that are not named here reach upstream unchanged.",
        request=ResponsesRequest,
        response=openapi_documents.ResponseDocument,
        text="Without `stream` upstream's response as one document; with it upstream's"
        " events, and at last `response.completed`, `.incomplete`, `.failed` or"
        " `error`.",
    ),
    Operation(
        "get",
        "/v1/generation",
        "Describe one of the caller's generations (`?id=`), as upstream bills it.",
    ),
    Operation(
        "get",
        "/v1/key",
        "Describe the caller's key: its name, its limits, what it has spent.",
    ),
    Operation(
        "get",
        "/v1/models",
        "List upstream's models.",
        response=openapi_documents.ModelListDocument,
    ),
    Operation(
        "get",
        "/v1/models/{model}",
        "Describe one of upstream's models.",
        response=ModelDocument,
    ),
)


def build() -> dict[str, Any]:
    """Return the OpenAPI document; the server adds that keys are needed."""
    models: list[type] = list(REFUSALS.values())
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        models += [model for model in (one.request, one.response) if model is not None]
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    _, schemas = components(dict.fromkeys(models), _REF)
    # A type cannot say that one of two fields must be there.
    either = [{"required": ["prompt"]}, {"required": ["messages"]}]
    schemas[ChatRequest.__name__]["oneOf"] = either
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trio-ai-stream",
            "version": version("trio-ai-stream"),
            "summary": "Chat streams that end when their client goes, and say why they"
            " ended.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(one: Operation) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", one.path).strip("_")
    made: dict[str, Any] = {
        "operationId": f"{one.method}_{name}",
        "summary": one.summary,
        "description": one.description,
        "parameters": [
            {"name": field, "in": "path", "required": True, "schema": _STRING}
            for field in re.findall(r"{(\w+)}", one.path)
        ],
    }
    if one.request is not None:
        made["requestBody"] = {
            "content": {_JSON: {"schema": _refer(one.request)}},
            "required": True,
        }
    content: dict[str, Any] = {}
    description = one.text
    if one.response is not None:
        content[_JSON] = {"schema": _refer(one.response)}
        description = description or inspect.getdoc(one.response) or ""
    if one.text:
        content |= dict.fromkeys(one.text_types, _TEXT)
    made["responses"] = {
        str(status): {"description": description, "content": content}
        for status in one.statuses
    }
    if one.path in PROBES:
        made["security"] = []
    else:
        made["responses"]["default"] = _refusal(one.path)
    return made


_STRING: Final = {"type": "string"}


def _refer(model: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=model.__name__)}


def _refusal(path: str) -> dict[str, Any]:
    dialect = dialect_of(path)
    content = {_JSON: {"schema": _refer(REFUSALS[dialect.error])}}
    if dialect is plain_chat.PLAIN_CHAT:
        # A client that accepts a stream gets its refusal as a stream of one event.
        content[_EVENTS] = _TEXT
    return {"description": "A refusal, under its true status.", "content": content}


# The usual viewers are megabytes of script from elsewhere, which our content security
# policy would not load. This page has no script, and one style.
STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; font: 600 1.1rem ui-monospace, monospace; }
code { font: 0.9em ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: 0.25rem 0.75rem 0.25rem 0; text-align: left; vertical-align: top; }
tr { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
td:last-child { overflow-wrap: anywhere; }
"""


def page(document: dict[str, Any]) -> str:
    """Return the document as a page of plain HTML."""
    return "\n".join(_parts(document)) + "\n"


def _parts(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = f"{info['title']}: the API"
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(info['summary'])}</p>"
        '<p>For machines: <a href="/openapi.json">OpenAPI 3.1</a>.</p>'
        "<p>On a server with keys every request but the probes carries "
        "<code>Authorization: Bearer KEY</code> or <code>x-api-key: KEY</code>.</p>"
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _section(path, method, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield from _schema(name, schema)
    yield "</body></html>"


def _section(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{method.upper()} {escape(path)}</h2>"
    yield f"<p>{_prose(operation['summary'])} {_prose(operation['description'])}</p>"
    yield "<table>"
    if body := operation.get("requestBody"):
        yield _row("takes", _types(body["content"]))
    for status, response in operation["responses"].items():
        text = f"{_types(response['content'])}<br>{_prose(response['description'])}"
        yield _row(status, text)
    yield "</table>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
    yield f"<p>{_prose(schema.get('description', ''))}</p><table>"
    required = schema.get("required", ())
    for field, kind in schema.get("properties", {}).items():
        text = _type(kind) + (", required" if field in required else "")
        yield _row(field, text)
    yield "</table>"


def _prose(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _row(head: str, html: str) -> str:
    return f"<tr><th><code>{escape(head)}</code></th><td>{html}</td></tr>"


def _types(content: dict[str, Any]) -> str:
    kinds = [
        f"<code>{escape(media)}</code> {_type(value['schema'])}"
        for media, value in content.items()
    ]
    return "; ".join(kinds)


def _type(schema: dict[str, Any]) -> str:
    """Return a schema in a few words of HTML."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("anyOf"):
        return " or ".join(_type(option) for option in options)
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(v))}</code>" for v in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "anything")))


def files() -> dict[Path, str]:
    """Return what is written, by file."""
    document = build()
    return {DOCUMENT: json.dumps(document, indent=1) + "\n", PAGE: page(document)}


def main() -> int:
    """Write the files."""
    for path, text in files().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
