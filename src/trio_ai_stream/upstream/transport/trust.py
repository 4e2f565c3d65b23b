"""Whom TLS to a server trusts."""

from __future__ import annotations

import os
import ssl

import httpx


class TrustError(ValueError):
    """The certificates that the environment names cannot be used."""


def client_tls() -> ssl.SSLContext:
    """Return what makes TLS connections for HTTP/1.1.

    It trusts SSL_CERT_FILE or SSL_CERT_DIR, or else the built-in list. Blocks for some
    tens of milliseconds, to read them.

    :raises TrustError: they cannot be read.
    """
    try:
        context = httpx.create_ssl_context()
    except OSError as exc:
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        why = "no certificates" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise TrustError(
            f"{name}: expected trusted certificates (PEM), got"
            f" {os.environ.get(name)}: {why}"
        ) from exc
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
