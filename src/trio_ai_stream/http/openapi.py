"""`GET /openapi.json`: OpenAPI 3.1, made by quart-schema from what the routes say.

A route is in it once it says what it answers. The models of bodies are the ones that
requests are validated with; what every endpoint may answer besides, refusals and
streams, is added here once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, Final, TypeVar

import msgspec
from quart_schema import HttpSecurityScheme, Info, QuartSchema
from quart_schema.openapi import OpenAPIProvider
from quart_schema.validation import (
    QUART_SCHEMA_REQUEST_ATTRIBUTE,
    QUART_SCHEMA_RESPONSE_ATTRIBUTE,
)
from quart_trio import QuartTrio
from werkzeug.routing import Rule

from trio_ai_stream.http.keys import PROBES
from trio_ai_stream.settings import Settings
from trio_ai_stream.wire.documents import ErrorDocument, OpenAIErrorDocument
from trio_ai_stream.wire.requests import ChatRequest

PATH: Final = "/openapi.json"
_TEXT_ATTRIBUTE: Final = "_trio_ai_stream_text"
_REF: Final = "#/components/schemas/{name}"
_EVENTS: Final = "text/event-stream"
# OpenAPI 3.1 has no word for what an event is (3.2 has `itemSchema`), and readers
# disagree whether a schema means the text or each event: so there is none.
_TEXT: Final[dict[str, Any]] = {"schema": {}}
Route = TypeVar("Route", bound=Callable[..., Any])

INFO: Final = Info(
    title="trio-ai-stream",
    version=version("trio-ai-stream"),
    summary="Chat streams that end when their client goes, and say why they ended.",
)


def document_text(description: str, *media_types: str) -> Callable[[Route], Route]:
    """Say that a route answers with text of these types, else with events."""

    def mark(route: Route) -> Route:
        setattr(route, _TEXT_ATTRIBUTE, (description, media_types or (_EVENTS,)))
        return route

    return mark


class Provider(OpenAPIProvider):
    """Quart-schema's document with our streams and refusals; made once."""

    _made: dict[str, Any] | None = None

    def schema(self) -> dict[str, Any]:
        """Return the document."""
        if self._made is None:
            self._made = _finished(super().schema(), self._models())
        return self._made

    def generate_rules(self) -> Iterable[Rule]:
        """Yield the routes that say what they answer, in the order of their paths."""
        views = self._app.view_functions
        attributes = (QUART_SCHEMA_RESPONSE_ATTRIBUTE, _TEXT_ATTRIBUTE)
        for rule in sorted(self._app.url_map.iter_rules(), key=lambda rule: rule.rule):
            view = views[rule.endpoint]
            if any(hasattr(view, attribute) for attribute in attributes):
                yield rule

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the operations of a route, and the models they name."""
        paths, components = super().build_paths(rule)
        view = self._app.view_functions[rule.endpoint]
        text = getattr(view, _TEXT_ATTRIBUTE, None)
        for path, operations in paths.items():
            for operation in operations.values():
                _complete(path, operation, text)
                _refer_to_models(operation)
        return paths, components

    def _models(self) -> list[type]:
        """Return the models of all routes: quart-schema forgets those within others."""
        models: list[type] = [ErrorDocument, OpenAIErrorDocument]
        for view in self._app.view_functions.values():
            if request := getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, None):
                models.append(request[0])
            responses = getattr(view, QUART_SCHEMA_RESPONSE_ATTRIBUTE, {})
            models += [model for model, _headers in responses.values()]
        return models


def add_openapi(app: QuartTrio, settings: Settings) -> None:
    """Serve the document; its routes must have been registered, or be soon."""
    QuartSchema(
        app,
        openapi_path=PATH,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=INFO,
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
        security_schemes={"bearer": HttpSecurityScheme(scheme="bearer")},
        security=[{"bearer": []}] if settings.keys_required else None,
    )
    # It also converts what views return; ours return responses, as Quart takes them.
    vars(app).pop("make_response")


def _complete(
    path: str, operation: dict[str, Any], text: tuple[str, Iterable[str]] | None
) -> None:
    operation["description"] = operation["description"].strip()
    responses = {str(k): v for k, v in sorted(operation["responses"].items())}
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    if text is not None:
        ok = responses.setdefault("200", {"content": {}})
        ok["description"], media_types = text
        for media_type in media_types:
            ok["content"][media_type] = _TEXT
    if path in PROBES:
        operation["security"] = []
    else:
        responses["default"] = _refusal(path)
    operation["responses"] = responses


def _refer_to_models(operation: dict[str, Any]) -> None:
    """Replace models that are written out in an operation by references."""
    bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
    for body in bodies:
        for value in body.get("content", {}).values():
            if name := value["schema"].get("title"):
                value["schema"] = {"$ref": _REF.format(name=name)}


def _refusal(path: str) -> dict[str, Any]:
    model = OpenAIErrorDocument if path.startswith("/v1/") else ErrorDocument
    schema = {"$ref": _REF.format(name=model.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if model is ErrorDocument:
        # A client that accepts a stream gets its refusal as a stream of one event.
        content[_EVENTS] = _TEXT
    return {"description": "A refusal, under its true status.", "content": content}


def _finished(document: dict[str, Any], models: list[type]) -> dict[str, Any]:
    """Add what quart-schema leaves out: shared models, and what a body must have."""
    _, schemas = msgspec.json.schema_components(models, ref_template=_REF)
    # A type cannot say that one of two fields must be there, and not null.
    either = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
        for name in ("prompt", "messages")
    ]
    schemas[ChatRequest.__name__]["oneOf"] = either
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["paths"] = dict(document["paths"])
    return document
