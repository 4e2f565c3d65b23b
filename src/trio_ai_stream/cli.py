"""The command line: `trio-ai-stream COMMAND`; each command is a few lines here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trio_ai_stream.settings import Settings, SettingsError, describe, load_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (2: bad usage or settings)."""
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream",
        description="A chat-streaming server in which every stream lives in a nursery.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="run the server").set_defaults(run=_serve)
    simulate = commands.add_parser("simulate", help="run the OpenRouter stand-in")
    simulate.add_argument("arguments", nargs=argparse.REMAINDER)
    simulate.set_defaults(run=_simulate)
    commands.add_parser(
        "check-config", help="print the effective settings, secrets masked"
    ).set_defaults(run=_check_config)
    certificate = commands.add_parser(
        "dev-cert", help="write a certificate for localhost"
    )
    certificate.add_argument("folder", nargs="?", default=Path(), type=Path)
    certificate.set_defaults(run=_dev_cert)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    return status


def _serve(_arguments: argparse.Namespace) -> int:
    from trio_ai_stream.server.launch import serve  # noqa: PLC0415  start-up time

    return serve(load_settings())


def _simulate(arguments: argparse.Namespace) -> int:
    from trio_ai_stream.simulator.__main__ import main as simulate  # noqa: PLC0415

    return simulate(arguments.arguments)


def _check_config(_arguments: argparse.Namespace) -> int:
    settings: Settings = load_settings()
    for name, value in describe(settings).items():
        print(f"{name}={value}")
    print(f"# upstream: {settings.upstream_kind}")
    return 0


def _dev_cert(arguments: argparse.Namespace) -> int:
    from trio_ai_stream.server.certificate import write  # noqa: PLC0415

    certificate, key = write(arguments.folder)
    print(f"TLS_CERT_FILE={certificate}\nTLS_KEY_FILE={key}")
    return 0
