"""Hypercorn's configuration: checked, because Hypercorn takes any key in silence."""

from __future__ import annotations

import difflib
from typing import Final

from hypercorn.config import Config

# What the guard bounds instead, and the setting that holds it ("" where it is fixed).
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


class ConfigError(ValueError):
    """The configuration has keys without effect, or files that TLS cannot use."""


def check(config: Config) -> None:
    """Refuse what would have no effect, and TLS that could not be spoken.

    Blocks for a moment, to read the certificate.

    :raises ConfigError: naming each key that Hypercorn does not know or the guard does
        not heed, and what was probably meant; or the two files of TLS.
    """
    problems = [problem for key in vars(config) if (problem := _problem(key))]
    try:
        config.create_ssl_context()
    except OSError as exc:
        problems.append(
            "certfile: expected a certificate, and in keyfile its private key, both"
            f" PEM, got {config.certfile} and {config.keyfile}: {exc}"
        )
    if problems:
        raise ConfigError("bad Hypercorn configuration:\n  " + "\n  ".join(problems))


def _problem(key: str) -> str | None:
    public = key.removeprefix("_")
    if public in SUPERSEDED:
        setting = SUPERSEDED[public]
        instead = f"set {setting} instead" if setting else "remove it"
        return f"{public}: has no effect here, the guard holds its own bound; {instead}"
    if hasattr(Config, key) or key in Config.__annotations__:
        return None
    known = [name for name in dir(Config) if not name.startswith("_")]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key}: Hypercorn has no such key{hint}"
