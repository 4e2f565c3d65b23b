"""What a person sees who starts the server in a terminal for the first time."""

from __future__ import annotations

import re
import signal
import socket

import pytest

from tests.support.terminal import Terminal


def start(*flags: str) -> Terminal:
    """Start the server on a port that is free."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    return Terminal("serve", "--port", port, *flags, UPSTREAM="simulator")


def test_a_start_and_its_end_fit_a_hundred_columns() -> None:
    """Where the page is, what answers, where it runs, how it ends: a line each."""
    terminal = start()
    try:
        terminal.see("(CTRL + C to quit)")
        terminal.type("\x03")
        terminal.see("draining: nothing is live")
        shown = terminal.rest().rstrip()
        assert terminal.process.returncode == 0
        first, *lines = shown.splitlines()
        assert re.fullmatch(r"starting; the page: http://localhost:\d+/ *", first)
        assert len(lines) == 4
        for line in lines:
            assert re.match(r"(\^C)?\d\d:\d\d:\d\d\.\d{3} (INFO|WARNING) ", line), shown
    finally:
        terminal.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_while_it_starts_shows_no_traceback(workers: str) -> None:
    """It ends by the signal, or as after a drain; the page is said once."""
    terminal = start("--workers", workers)
    try:
        terminal.see("starting; the page: ")
        terminal.type("\x03")
        shown = terminal.rest()
        assert terminal.process.returncode in {-signal.SIGINT, 0}
        assert "Traceback" not in shown
        assert shown.count("the page") == 1
    finally:
        terminal.close()
