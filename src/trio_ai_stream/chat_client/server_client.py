"""The server that a command asks: the options that name it, and the HTTP client."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path
from typing import Final

import httpx

from trio_ai_stream.upstream.transport import (
    TransportLimits,
    TrustError,
    UpstreamTransport,
    client_tls,
)

URL_VARIABLE: Final = "TRIO_AI_STREAM_URL"
# An argument can be read by everybody on the machine; the environment cannot.
KEY_VARIABLE: Final = "TRIO_AI_STREAM_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONNECT_S: Final = 10.0
# A person waits for this one server: nothing is gained by not asking it for a time.
NO_CIRCUIT: Final = TransportLimits(circuit_failures=10**9)


def add_key_and_ca(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command has which asks a server."""
    parser.add_argument(
        "--key",
        type=_key,
        default=os.environ.get(KEY_VARIABLE, ""),
        help=f"its API key (better: ${KEY_VARIABLE})",
    )
    parser.add_argument(
        "--ca",
        type=_certificates,
        metavar="FILE",
        help="certificates (PEM) to trust besides those that are well known,"
        " such as the dev-ca.pem of `trio-ai-stream dev-cert`",
    )


def _key(text: str) -> str:
    """Return a key that fits into a header; what came is not shown."""
    if not all("!" <= c <= "~" for c in text):
        raise argparse.ArgumentTypeError(
            "expected a key of visible ASCII characters without spaces, got others"
        )
    return text


def _certificates(path: str) -> ssl.SSLContext:
    """Return what makes TLS connections and trusts `path` too."""
    try:
        context = client_tls()
        context.load_verify_locations(Path(path))
    except TrustError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    except ssl.SSLError as exc:
        raise argparse.ArgumentTypeError(
            f"expected certificates in PEM in {path}"
        ) from exc
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{path}: {exc.strerror}") from exc
    return context


def server_url(text: str) -> httpx.URL:
    """Return an address from the command line.

    :raises argparse.ArgumentTypeError: it is no http or https address that can be.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise argparse.ArgumentTypeError(f"expected http://… or https://…, got {text}")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port of 1 to 65535, got {text}")
    return url


def open_client(
    url: httpx.URL | str, key: str, tls: ssl.SSLContext | None
) -> httpx.AsyncClient:
    """Return a client of one server; only connecting has a time limit.

    :raises SettingsError: SSL_CERT_FILE names no certificates.
    """
    try:
        tls = tls or client_tls()
    except TrustError as exc:
        from trio_ai_stream.settings import SettingsError  # most starts need none

        raise SettingsError([str(exc)]) from exc
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(
        transport=UpstreamTransport(ssl_context=tls, limits=NO_CIRCUIT),
        base_url=url,
        headers={"Accept-Encoding": "identity", **headers},
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        trust_env=False,
    )
