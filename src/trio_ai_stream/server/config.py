"""Hypercorn's configuration: checked, because Hypercorn takes any key in silence."""

from __future__ import annotations

import difflib
import enum
import logging
import os
import ssl
from typing import Final

from hypercorn.config import Config

# What the server bounds instead, and the setting that holds it ("" where it is fixed).
SUPERSEDED: Final = {
    "backlog": "MAX_CONCURRENT_STREAMS",
    "graceful_timeout": "DRAIN_TIMEOUT_SECS",
    "h11_max_incomplete_size": "",
    "h2_max_concurrent_streams": "",
    "h2_max_header_list_size": "",
    "h2_max_inbound_frame_size": "",
    "keep_alive_max_requests": "",
    "keep_alive_timeout": "IDLE_TIMEOUT_SECS",
    "max_app_queue_size": "",
    "quic_bind": "",
    "read_timeout": "READ_TIMEOUT_SECS",
    "shutdown_timeout": "",
    "ssl_handshake_timeout": "",
}


_CONSTANTS: Final[dict[str, type[enum.Enum]]] = {
    "verify_mode": ssl.VerifyMode,
    "verify_flags": ssl.VerifyFlags,
}

log: Final = logging.getLogger("trio_ai_stream.server")


class ConfigError(ValueError):
    """The configuration has keys without effect, or what TLS cannot use."""


def check(config: Config) -> None:
    """Refuse what would have no effect, and TLS that could not be spoken.

    Blocks for a moment, to read the certificate.

    :raises ConfigError: naming each key that Hypercorn does not know or the server does
        not heed, and what was probably meant; or the two files of TLS.
    """
    problems = [problem for key in vars(config) if (problem := _problem(key))]
    problems += _read_names(config)
    if config.ssl_enabled and not problems:
        try:
            tls_context(config)
        except ConfigError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigError("bad Hypercorn configuration:\n  " + "\n  ".join(problems))
    if config.ca_certs is not None and not config.verify_mode:
        log.warning(
            "ca_certs demands nothing of clients by itself; set verify_mode ="
            ' "CERT_REQUIRED" to demand a certificate of them',
            extra={"event": "ca_certs_without_verify_mode"},
        )


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return the context of the configured certificate; None without one.

    Blocks for a moment, to read the files.

    :raises ConfigError: one of the files cannot be used.
    """
    if not config.ssl_enabled:
        return None
    _refuse_pipes(config)
    if config.ca_certs is not None:
        try:
            ssl.create_default_context(cafile=config.ca_certs)
        except OSError as exc:
            raise ConfigError(
                f"ca_certs: expected certificates (PEM), got {config.ca_certs}: {exc}"
            ) from exc
    try:
        context = config.create_ssl_context()
    except OSError as exc:
        if "cipher" in str(exc).lower():
            raise ConfigError(
                "ciphers: expected names that OpenSSL knows, got"
                f" {config.ciphers!r}: {exc}"
            ) from exc
        raise ConfigError(
            "certfile: expected a certificate, and in keyfile its private key, both"
            f" PEM, got {config.certfile} and {config.keyfile}: {exc}"
        ) from exc
    assert context is not None  # TLS is configured
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _refuse_pipes(config: Config) -> None:
    """Refuse files that are read by waiting for their writer, for good perhaps.

    :raises ConfigError: naming one.
    """
    for key in ("certfile", "keyfile", "ca_certs"):
        path = getattr(config, key)
        # What cannot be looked at is opened as usual, which says what is wrong.
        if path is None or not os.path.exists(path) or os.path.isdir(path):
            continue
        if not os.path.isfile(path):
            raise ConfigError(
                f"{key}: expected a regular file, got a pipe or a device: {path}"
            )


def _read_names(config: Config) -> list[str]:
    """Replace the names of TLS constants, all that TOML can hold; return the problems.

    Hypercorn's command line reads them itself.
    """
    problems = []
    for key, kind in _CONSTANTS.items():
        value = getattr(config, key)
        if value is None or isinstance(value, kind):
            continue
        try:
            setattr(config, key, kind[value] if isinstance(value, str) else kind(value))
        except (KeyError, ValueError, TypeError):
            names = ", ".join(kind.__members__)
            problems.append(f"{key}: expected one of {names}, got {value!r}")
    return problems


def _problem(key: str) -> str | None:
    public = key.removeprefix("_")
    if public in SUPERSEDED:
        setting = SUPERSEDED[public]
        instead = f"set {setting} instead" if setting else "remove it"
        return (
            f"{public}: has no effect here, the server holds its own bound; {instead}"
        )
    if hasattr(Config, key) or key in Config.__annotations__:
        return None
    known = [name for name in dir(Config) if not name.startswith("_")]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key}: Hypercorn has no such key{hint}"
