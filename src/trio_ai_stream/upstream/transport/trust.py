"""Whom TLS to a server trusts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx


class TrustError(ValueError):
    """The certificates that the environment names cannot be used."""


def client_tls() -> ssl.SSLContext:
    """Return what makes TLS connections for HTTP/1.1.

    It trusts SSL_CERT_FILE or SSL_CERT_DIR, or else the built-in list. Blocks for some
    tens of milliseconds, to read them.

    :raises TrustError: they cannot be read.
    """
    name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
    path = os.environ.get(name)
    wrong = f"{name}: expected trusted certificates (PEM), got {path}"
    if path and Path(path).is_fifo():  # opening one would wait for its writer
        raise TrustError(f"{wrong}: a pipe; name a regular file")
    try:
        context = httpx.create_ssl_context()
    except OSError as exc:
        why = "no certificates" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise TrustError(f"{wrong}: {why}") from exc
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
