"""The command line: `trio-ai-stream COMMAND …`; a room parses its own rest."""

from __future__ import annotations

import argparse
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trio_ai_stream.server.signals import remember_early

if TYPE_CHECKING:
    from trio_ai_stream.settings import Handover, Settings

# What writing to stdout fails with that is nobody's bug: nobody reads, the disk is
# full, the terminal is gone.
UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO})

# Imported where they are needed: the settings and the server's rooms take most of a
# second, and process 1 must hear a signal before that.


class Command(NamedTuple):
    """One command: its line of help and what runs it with the rest of the line."""

    summary: str
    run: Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (2: bad usage or settings)."""
    _have_standard_streams()
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream",
        description="A chat-streaming server in which every stream lives in a nursery.",
        epilog="\n".join(f"  {name:13} {c.summary}" for name, c in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version(parser.prog))
    one_of = "one of these; `COMMAND --help` says more"
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=one_of)
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser.print_help(sys.stderr)
        return 2
    command = parser.parse_args(words[:1]).command
    # HTTPX imports its own command line, and Rich with that, where it finds Rich: a
    # tenth of a start. It goes without if this module is missing.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    if command == "serve":
        remember_early()
        # What is imported stays, and passes over it take a tenth of a start.
        gc.disable()  # until `settle_collector`
    try:
        status = _run(command, words[1:])
    finally:
        gc.enable()
    try:
        sys.stdout.flush()
    except OSError as exc:
        status = _unwritten(exc)
    return status


def _run(command: str, words: Sequence[str]) -> int:
    try:
        return COMMANDS[command].run(words)
    except ValueError as exc:
        from trio_ai_stream.settings import SettingsError

        if not isinstance(exc, SettingsError):
            raise
        print(exc, file=sys.stderr)
        return 2
    except OSError as exc:
        if exc.errno not in UNWRITABLE:
            raise
        return _unwritten(exc)
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT


def _unwritten(exc: OSError) -> int:
    """Say why stdout was not written, unless only its reader left; return a failure."""
    if exc.errno != errno.EPIPE:
        print(f"cannot write: {exc.strerror}", file=sys.stderr)
    # Python would flush stdout once more at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _have_standard_streams() -> None:
    """Have all three streams, and let no character end what is shown.

    One that was closed leads nowhere: else its number would be the next socket's.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)  # the workers' too
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # who reads it says so
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def commands() -> list[str]:
    """Return the names of all commands."""
    return list(COMMANDS)


def _room_command(module: str) -> Callable[[Sequence[str]], int]:
    """Return the command of a room, which is imported only when it is asked for."""

    def run(words: Sequence[str]) -> int:
        status: int = importlib.import_module(module).main(words)
        return status

    return run


def _arguments(command: str, words: Sequence[str], **folder: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"trio-ai-stream {command}")
    for name, text in folder.items():
        parser.add_argument(name, nargs="?", default=Path(), type=Path, help=text)
    return parser.parse_args(words)


# The usual flags of `serve`, and the settings that they are.
FLAGS: Final = {
    "host": ("HOST", "the address to listen on"),
    "port": ("PORT", "the port, 0 for any that is free"),
    "workers": ("WORKERS", "how many processes serve"),
    "tls-cert": ("TLS_CERT_FILE", "the certificate, with its chain"),
    "tls-key": ("TLS_KEY_FILE", "its key"),
    "upstream": ("UPSTREAM", "auto, openrouter or simulator"),
    "model": ("OPENROUTER_MODEL", "the model of requests that name none"),
    "log-level": ("LOG_LEVEL", "the least level that is logged"),
    "log-format": ("LOG_FORMAT", "auto, text or json"),
    "drain-timeout": ("DRAIN_TIMEOUT_SECS", "how long a shutdown waits for streams"),
}


def _read_flags(words: Sequence[str]) -> None:
    """Put the flags into the environment, where workers and a reload find them too."""
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream serve",
        description="Run the server. A flag wins over the environment, that over .env.",
        epilog="`trio-ai-stream check-config` prints all settings; .env.example says"
        " what they do.",
    )
    for flag, (name, text) in FLAGS.items():
        help_ = f"{text} (setting {name})"
        parser.add_argument(f"--{flag}", dest=name, metavar="VALUE", help=help_)
    given = vars(parser.parse_args(words))
    os.environ.update({name: value for name, value in given.items() if value})


def _say_where_the_page_is(settings: Settings) -> None:
    """Tell a person at a terminal what to open; the log says when it can be opened."""
    from trio_ai_stream.server.sockets import address_text

    host, port = settings.bind
    if port and sys.stderr.isatty():
        scheme = "http" if settings.TLS_CERT_FILE is None else "https"
        shown = "localhost" if host in {"0.0.0.0", "::", "127.0.0.1"} else host  # noqa: S104
        address = address_text(shown, port)
        print(f"starting; the page: {scheme}://{address}/", file=sys.stderr)


def _serve(words: Sequence[str]) -> int:
    _read_flags(words)
    from trio_ai_stream.settings import first_settings, refuse_exposure

    settings = first_settings()
    refuse_exposure(settings)
    from trio_ai_stream.server.launch import LISTEN_VARIABLE
    from trio_ai_stream.server.sockets import ActivationError
    from trio_ai_stream.server.supervisor import refuse_to_start

    if LISTEN_VARIABLE not in os.environ:  # a worker: its parent has said it
        _say_where_the_page_is(settings)
    try:
        return serve_under(settings)
    except ActivationError as exc:
        refuse_to_start(str(exc), 2)
    except OSError as exc:  # before there was anything to serve
        refuse_to_start(f"cannot start: {exc}", 1)


def serve_under(settings: Settings, **program: Any) -> int:
    """Serve under the settings until a signal; return the exit status.

    :param program: the application and the command of `Launch`, if not our own.
    :raises SettingsError: they would let strangers in.
    :raises SystemExit, OSError, ActivationError: as `launch.serve`.
    """
    from trio_ai_stream.server.launch import Launch, serve
    from trio_ai_stream.settings import refuse_exposure

    tls = None
    if settings.TLS_CERT_FILE is not None:
        tls = str(settings.TLS_CERT_FILE), str(settings.TLS_KEY_FILE)
    launch = Launch(
        bind=settings.bind,
        workers=settings.WORKERS,
        tls=tls,
        log_level=settings.LOG_LEVEL.replace("TRACE", "DEBUG"),
        drain_s=settings.DRAIN_TIMEOUT_SECS,
        hang_s=settings.WATCHDOG_TIMEOUT_SECS,
        beside=_beside(settings),
        **program,
    )
    return serve(
        launch,
        check_hosts=partial(refuse_exposure, settings),
        on_supervise=partial(_begin_to_supervise, settings),
    )


def _begin_to_supervise(settings: Settings) -> Handover:
    """Do for a parent of workers what importing the application does for a worker.

    Return the settings for the workers.
    """
    from trio_ai_stream.settings import Handover
    from trio_ai_stream.telemetry.garbage import settle_collector
    from trio_ai_stream.telemetry.logs import configure_logging

    configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
    settle_collector()
    _warn_of_shared_ports(settings)
    return Handover(settings)


def _beside(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return the ports beside the first, by setting."""
    binds = {
        "METRICS_PORT": settings.management_bind,
        "PEER_ADDRESS": settings.PEER_ADDRESS,
    }
    return {name: bind for name, bind in binds.items() if bind is not None}


def _warn_of_shared_ports(settings: Settings) -> None:
    """Say if another server has the ports that only our own workers should share.

    The system lets it in: a server that drains has them while the next one starts.
    """
    from loguru import logger

    from trio_ai_stream.server.side_listener import bind_tcp
    from trio_ai_stream.server.sockets import address_text

    for name, bind in _beside(settings).items():
        try:
            bind_tcp(bind, setting=name, shared=False).close()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:  # the workers say all else
                logger.warning(
                    "another server listens here as well: either answers, so stop it or"
                    " name another port",
                    event="port_shared",
                    setting=name,
                    address=address_text(*bind),
                )


def _check_config(words: Sequence[str]) -> int:
    _arguments("check-config", words)
    from trio_ai_stream.admission.admission_factory import require_extra
    from trio_ai_stream.settings import (
        describe,
        foreign_names,
        load_settings,
        refuse_exposure,
    )
    from trio_ai_stream.telemetry.traces import open_tracer
    from trio_ai_stream.upstream.factory import egress_of

    settings = load_settings()
    refuse_exposure(settings)
    egress_of(settings)
    require_extra(settings)
    tracer = open_tracer(os.environ, provider=settings.upstream_kind, version="")
    if tracer is not None:
        tracer.close()  # it only had to be made
    for name, value in describe(settings).items():
        print(f"{name}={value}")
    print(f"# upstream: {settings.upstream_kind}")
    if foreign := foreign_names():
        print(f"# in .env, and no settings of this server: {', '.join(foreign)}")
    return 0


def _dev_cert(words: Sequence[str]) -> int:
    arguments = _arguments("dev-cert", words, folder="where to write (default: here)")
    from trio_ai_stream.server.certificate import write

    try:
        certificate, key = write(arguments.folder)
    except ModuleNotFoundError as exc:
        if exc.name != "trustme":
            raise
        print(
            "dev-cert: expected the package trustme; install the extra: "
            "pip install 'trio-ai-stream[dev-cert]'",
            file=sys.stderr,
        )
        return 2
    except FileExistsError as exc:
        print(f"{exc.filename}: exists; nothing was written", file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"dev-cert: cannot write {exc.filename}: {exc.strerror}", file=sys.stderr)
        return 1
    print(f"TLS_CERT_FILE={certificate}\nTLS_KEY_FILE={key}")
    return 0


def _lab(words: Sequence[str]) -> int:
    try:
        from cancel_lab.__main__ import main as run
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "cancel_lab":
            raise
        print(
            "lab: expected the package cancel-lab; install it from a checkout: "
            "pip install ./packages/cancel-lab",
            file=sys.stderr,
        )
        return 2
    return run(words)


COMMANDS: Final[dict[str, Command]] = {
    "serve": Command("run the server", _serve),
    "chat": Command(
        "ask a server, from the terminal",
        _room_command("trio_ai_stream.chat_client.command"),
    ),
    "pstree": Command(
        "show a server's streams as trees of tasks",
        _room_command("trio_ai_stream.chat_client.process_tree"),
    ),
    "simulate": Command(
        "run the OpenRouter stand-in",
        _room_command("trio_ai_stream.simulator.__main__"),
    ),
    "usage": Command(
        "sum up what streams have cost",
        _room_command("trio_ai_stream.billing.usage_report"),
    ),
    "check-config": Command("print the settings, secrets masked", _check_config),
    "dev-cert": Command("write a certificate for localhost", _dev_cert),
    "lab": Command(
        "measure cancellation, here and in other servers",
        _lab,
    ),
}
