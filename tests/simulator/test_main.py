"""The simulator as a program: its one line, its signals, its exit statuses."""

from __future__ import annotations

import functools
import json
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trustme

from tests.simulator.client import Client, body_of

COMMAND = (sys.executable, "-m", "trio_ai_stream.simulator")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    """It prints its address, serves, and exits with 0 on a signal, streams or not."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            start = functools.partial(
                trio.run_process, [*COMMAND, "--json"], stdout=subprocess.PIPE
            )
            run: trio.Process = await nursery.start(start)
            assert run.stdout is not None
            address = json.loads(await run.stdout.receive_some(1000))
            client = Client(
                await trio.open_tcp_stream(address["host"], address["port"])
            )
            await client.send(body=body_of("simulator/silent"))
            await client.next_event()
            run.send_signal(number)
            await run.wait()
            await client.stream.aclose()
    assert run.returncode == 0


async def test_the_port_for_tls_is_said(tmp_path: Path) -> None:
    """The address of a free port is printed, also of that which speaks TLS."""
    authority, pem = trustme.CA(), tmp_path / "server.pem"
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    options = ["--json", "--certificate", str(pem)]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            start = functools.partial(
                trio.run_process, [*COMMAND, *options], stdout=subprocess.PIPE
            )
            run: trio.Process = await nursery.start(start)
            assert run.stdout is not None
            said = json.loads(await run.stdout.receive_some(1000))
            context = ssl.create_default_context()
            authority.configure_trust(context)
            async with await trio.open_ssl_over_tcp_stream(
                said["host"], said["tls_port"], ssl_context=context
            ) as stream:
                response = await Client(stream).get("/models")
            run.terminate()
    assert response.status == 200


def test_a_taken_port_is_said() -> None:
    """A port that is taken is one line on stderr and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--port", port], capture_output=True, text=True, timeout=20
        )
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_model_is_said() -> None:
    """A default model that does not parse is one line on stderr and status 2."""
    done = subprocess.run(
        [*COMMAND, "--model", "simulator/nope"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert "simulator/nope" in done.stderr


def test_what_tls_cannot_use_is_said(tmp_path: Path) -> None:
    """A port for TLS without a certificate, and a file that is none."""
    none, bad = tmp_path / "none.pem", tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for options, said in (
        (["--tls-port", "0"], "--tls-port: expected together with --certificate"),
        (["--certificate", str(none)], f"got {none}: No such file or directory"),
        (["--certificate", str(bad)], f"got {bad}: no such pair"),
    ):
        done = subprocess.run(
            [*COMMAND, *options], capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
