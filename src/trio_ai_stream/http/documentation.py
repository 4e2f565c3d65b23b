"""`GET /docs`: the OpenAPI document as a page of plain HTML.

The usual viewers are megabytes of script from elsewhere, which our content security
policy would not load. This page has no script at all, and one style, which the policy
names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html import escape
from typing import Any, Final

from quart import Blueprint, Response, current_app

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
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


def documentation_blueprint() -> Blueprint:
    """Return the blueprint with the page."""
    blueprint = Blueprint("documentation", __name__)

    @blueprint.get("/docs")
    async def docs() -> Response:
        document = current_app.extensions["QUART_SCHEMA"].openapi_provider.schema()
        response = Response(page(document))
        response.headers["Content-Type"] = "text/html; charset=utf-8"
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return blueprint


def page(document: dict[str, Any]) -> str:
    """Return the page for an OpenAPI document."""
    return "".join(_parts(document))


def _parts(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(info['summary'])}</p>"
        '<p>For machines: <a href="/openapi.json">OpenAPI 3.1</a>.</p>'
    )
    if document.get("security"):
        yield "<p>Every request carries <code>Authorization: Bearer KEY</code>.</p>"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(path, method, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield from _schema(name, schema)
    yield "</body></html>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
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
