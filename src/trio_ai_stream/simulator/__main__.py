"""The simulator as a program: `python -m trio_ai_stream.simulator --port 9000`.

Prints one line, its address, when it accepts connections. SIGTERM and SIGINT end it
at once, exit status 0.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import signal
import ssl
import sys
from collections.abc import Sequence

import trio

from trio_ai_stream.simulator.faults import FaultError
from trio_ai_stream.simulator.ledger import RECENT_SENDS, SIZE, Ledger
from trio_ai_stream.simulator.simulator import (
    BACKLOG,
    DEFAULT_MODEL,
    Address,
    Simulator,
)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text!r}")
    return int(text)


def _port(text: str) -> int:
    # Of a larger number the system takes the lower 16 bits.
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port of 0 to 65535, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="trio-ai-stream simulate",
        description="An OpenRouter stand-in with faults on request.",
    )
    made.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    made.add_argument(
        "--port", type=_port, default=0, help="default: one that is free, printed"
    )
    made.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="how models act that are not simulator/…; simulator/fast for no delays",
    )
    made.add_argument(
        "--records", type=_count, default=SIZE, help="ended requests to remember"
    )
    made.add_argument(
        "--recent-sends",
        type=_count,
        default=RECENT_SENDS,
        help="sends kept per request",
    )
    made.add_argument(
        "--certificate",
        metavar="FILE",
        help="PEM with its key: listen over TLS as well, at --tls-port",
    )
    made.add_argument(
        "--tls-port", type=_port, help="with --certificate; default: one that is free"
    )
    made.add_argument("--json", action="store_true", help="print the address as JSON")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulator until a signal comes; return the exit status."""
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.tls_port is not None and not arguments.certificate:
        made.error("--tls-port: expected together with --certificate, got it alone")
    ledger = Ledger(size=arguments.records, recent_sends=arguments.recent_sends)
    try:
        simulator = Simulator(default_model=arguments.model, ledger=ledger)
    except FaultError as exc:
        sys.stderr.write(f"--model: {exc}\n")
        return 2
    gc.freeze()  # what is loaded now lives for ever: no collection need look at it
    try:
        tls = tls_context(arguments.certificate) if arguments.certificate else None
    except OSError as exc:
        why = "no such pair" if isinstance(exc, ssl.SSLError) else exc.strerror
        sys.stderr.write(
            "--certificate: expected a file with a certificate and its private key,"
            f" both PEM, got {arguments.certificate}: {why}\n"
        )
        return 2
    run = functools.partial(run_until_signal, simulator, arguments, tls)
    try:
        trio.run(run)
    except OSError as exc:
        sys.stderr.write(f"{arguments.host}:{arguments.port}: {exc}\n")
        return 1
    return 0


def tls_context(file: str) -> ssl.SSLContext:
    """Return what speaks TLS with the certificate and the key in one PEM file.

    :raises OSError: it holds no such pair, or cannot be read.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Without a password OpenSSL would ask the terminal for that of a locked key.
    context.load_cert_chain(file, password="")
    return context


async def open_listeners(
    arguments: argparse.Namespace, tls: ssl.SSLContext | None
) -> list[trio.abc.Listener[trio.abc.Stream]]:
    """Listen, over TLS as well if it can be spoken; OSError if that fails."""
    host, port = arguments.host, arguments.port
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    listeners += await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    if tls is not None:
        # Some clients close without close_notify, as HTTP allows.
        listeners += [
            trio.SSLListener(listener, tls, https_compatible=True)
            for listener in await trio.open_tcp_listeners(
                arguments.tls_port or 0, host=host, backlog=BACKLOG
            )
        ]
    return listeners


async def run_until_signal(
    simulator: Simulator, arguments: argparse.Namespace, tls: ssl.SSLContext | None
) -> None:
    """Serve until SIGTERM or SIGINT; OSError if the address cannot be had."""
    listeners = await open_listeners(arguments, tls)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            address: Address = await nursery.start(simulator.serve, listeners)
            said = address._asdict() | {"base_url": address.base_url}
            line = f"simulator on {address.base_url}"
            if isinstance(last := listeners[-1], trio.SSLListener):
                assert isinstance(last.transport_listener, trio.SocketListener)
                said["tls_port"] = last.transport_listener.socket.getsockname()[1]
                line += f", over TLS on port {said['tls_port']}"
            sys.stdout.write((json.dumps(said) if arguments.json else line) + "\n")
            sys.stdout.flush()
            async for number in signals:
                nursery.cancel_scope.cancel(reason=signal.Signals(number).name)
                break


if __name__ == "__main__":
    sys.exit(main())
