"""METRICS_PORT: probes and scrapers are answered until the process exits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from cryptography import x509

from cancel_lab.process import free_port
from tests.support.process import HYPERCORN, SERVE, children, curl, server
from trio_ai_stream.server.certificate import write

APP = "trio_ai_stream.app:app"
KEYS = {"API_KEYS": "a-client-key", "ADMIN_KEYS": "an-admin-key"}


def launch(name: str) -> tuple[Sequence[str], dict[str, str]]:
    """Return the command and the settings of one way to start the server."""
    kind, workers = name.split("-")
    if kind == "serve":
        return SERVE, {"WORKERS": workers}
    return [*HYPERCORN, "-b", "127.0.0.1:0", "-w", workers, APP], {}


async def stream(url: str, lines: list[str]) -> None:
    """Hold one stream that ends only by the drain; collect what it says."""
    words = ["curl", "-sSN", "--max-time", "30", url + "/chat", "-d"]
    words += [json.dumps({"prompt": "x", "model": "simulator/endless"})]
    words += ["-H", "content-type: application/json"]
    words += ["-H", "authorization: Bearer a-client-key"]
    done = await trio.run_process(words, capture_stdout=True, check=False)
    lines += done.stdout.decode().splitlines()


def may_unshare() -> bool:
    """Whether a process may have mounts of its own here."""
    try:
        done = subprocess.run(
            ["unshare", "-rm", "true"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="needs a mount namespace")
async def test_a_disk_that_becomes_read_only_ends_nothing() -> None:
    """Where the workers share files; they are scraped, and shut down in peace."""
    port = free_port()
    settings = {"WORKERS": "2", "METRICS_PORT": str(port)}
    # The path of a test's own is too long for a socket in it.
    with trio.fail_after(60), TemporaryDirectory(prefix="ro-") as shared:
        settings["TMPDIR"] = shared
        async with server(["unshare", "-rm", *SERVE], **settings) as running:
            await running.listening(2)
            where = f"--target={running.process.pid}"
            enter = ["nsenter", where, "-U", "--preserve-credentials", "-m"]
            for options in (["--bind"], ["-o", "remount,bind,ro"]):
                command = [*enter, "mount", *options, shared, shared]
                await trio.run_process(command)
            metrics = await curl(f"http://127.0.0.1:{port}/metrics")
            assert metrics.startswith("HTTP/1.1 200")
            assert "\ntrio_ai_stream_workers 2.0" in metrics
            assert await running.stop() == 0
    assert not [record for record in running.records if record["level"] == "ERROR"]


@pytest.mark.parametrize("name", ["serve-1", "serve-2", "hypercorn-1", "hypercorn-2"])
async def test_a_draining_server_can_still_be_scraped(name: str) -> None:
    """The first port is closed, and the second says that the server drains."""
    port = free_port()
    command, settings = launch(name)
    settings |= {"METRICS_PORT": str(port), "DRAIN_TIMEOUT_SECS": "4", **KEYS}
    management = f"http://127.0.0.1:{port}"
    with trio.fail_after(90):
        async with server(command, **settings) as running:
            url = f"http://127.0.0.1:{running.port}"
            lines: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream, url, lines)
                live = "} 0.0"
                while 'endpoint="/chat"} 1.0' not in live:
                    live = await curl(management + "/metrics", check=False)
                assert live.startswith("HTTP/1.1 200")
                assert (await curl(management + "/ready")).startswith("HTTP/1.1 200")
                while f"stream_ready {name[-1]}.0" not in live:
                    live = await curl(management + "/metrics", check=False)
                running.process.terminate()
                ready = ""
                while not ready.startswith("HTTP/1.1 503"):
                    ready = await curl(management + "/ready", check=False)
                assert "the server is draining" in ready
                metrics = await curl(management + "/metrics")
                assert 'streams_live{endpoint="/chat"} 1.0' in metrics
                assert "trio_ai_stream_draining 0.0" not in metrics
                assert f"workers_expected {name[-1]}.0" in metrics
                health = await curl(management + "/health")
                assert health.startswith("HTTP/1.1 200")
                first = await curl(url + "/health", check=False)
                assert not first.startswith("HTTP/1.1 200")
                if command is SERVE:  # a second signal: the rest is not waited for
                    running.process.terminate()
            assert "shutting_down" in "".join(lines)
            assert await running.process.wait() == 0
            assert await curl(management + "/health", check=False) == ""


async def test_only_probes_and_metrics_are_there(tmp_path: Path) -> None:
    """The second port is plain HTTP, needs no key, and gives nothing that needs one."""
    port = free_port()
    certificate, key = write(tmp_path)
    tls = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    with trio.fail_after(60):
        async with server(SERVE, METRICS_PORT=str(port), **tls, **KEYS) as running:
            management = f"http://127.0.0.1:{port}"
            for path in ("/streams", "/chat", "/", "/docs"):
                answer = await curl(management + path)
                assert answer.startswith("HTTP/1.1 404"), path
            answer = await curl("-H", "Host: evil.test", management + "/metrics")
            assert answer.startswith("HTTP/1.1 403")
            answer = await curl(management + "/metrics", data={})
            assert answer.startswith("HTTP/1.1 405")
            first = await curl("-k", f"https://127.0.0.1:{running.port}/metrics")
            assert first.startswith("HTTP/2 401")
            pem = certificate.read_bytes()
            ends = x509.load_pem_x509_certificate(pem).not_valid_after_utc
            metrics = await curl(management + "/metrics")
            found = re.search(r"expiry_timestamp_seconds ([0-9.e+]+)\n", metrics)
            assert found is not None
            assert float(found[1]) == ends.timestamp()
            assert await running.stop() == 0


async def test_the_log_names_clients_as_configured() -> None:
    """Records of every kind name their client as far as LOG_CLIENTS lets them."""
    with trio.fail_after(60):
        async with server(SERVE, LOG_CLIENTS="network") as running:
            body = {"prompt": "x", "model": "simulator/fast"}
            await curl(f"http://127.0.0.1:{running.port}/chat", data=body)
            await curl(f"http://127.0.0.1:{running.port}/streams")
            assert await running.stop() == 0
    named = {"stream_ended", "request_ended"}
    records = [r for r in running.records if r["event"] in named]
    assert {r["event"] for r in records} == named
    assert {r["client"] for r in records} == {"ip:127.0.0.0/24"}


async def test_a_rejected_key_is_not_silent() -> None:
    """Metric and readiness say that upstream does not take our key."""
    port = free_port()
    with trio.fail_after(60):
        async with server(SERVE, METRICS_PORT=str(port)) as running:
            management = f"http://127.0.0.1:{port}"
            body = {"prompt": "x", "model": "simulator/default?status=401"}
            await curl(f"http://127.0.0.1:{running.port}/chat", data=body)
            ready = await curl(management + "/ready")
            assert ready.startswith("HTTP/1.1 503")
            assert "OPENROUTER_API_KEY" in ready
            metrics = ""
            while "upstream_key_rejected 1.0" not in metrics:
                metrics = await curl(management + "/metrics")
            while "trio_ai_stream_ready 0.0" not in metrics:
                metrics = await curl(management + "/metrics")
            assert 'upstream_responses_total{status="4xx"} 1.0' in metrics
            assert [r["event"] for r in running.records].count(
                "upstream_key_rejected"
            ) == 1
            assert await running.stop() == 0


async def test_a_worker_that_hangs_holds_no_probe() -> None:
    """Whoever is free takes the next connection of the port that they share."""
    port = free_port()
    with trio.fail_after(60):
        async with server(SERVE, METRICS_PORT=str(port), WORKERS="2") as running:
            await running.listening(2)
            hung = children(running.process.pid)[0]
            os.kill(hung, signal.SIGSTOP)
            try:
                for _ in range(8):
                    health = await curl(f"http://127.0.0.1:{port}/health")
                    assert health.startswith("HTTP/1.1 200")
            finally:
                with suppress(ProcessLookupError):  # its supervisor has killed it
                    os.kill(hung, signal.SIGCONT)
            assert await running.stop() == 0


async def test_a_port_that_another_server_has_is_said() -> None:
    """The system lets several workers share it, and so another server's workers."""
    shared = {"METRICS_PORT": str(free_port()), "WORKERS": "2"}
    with trio.fail_after(90):
        async with server(SERVE, **shared) as first:
            await first.listening(2)
            async with server(SERVE, **shared) as second:
                await second.logged("port_shared")
                assert await second.stop() == 0
            assert await first.stop() == 0
    (said,) = [r for r in second.records if r["event"] == "port_shared"]
    assert said["setting"] == "METRICS_PORT"
    assert not [r for r in first.records if r["event"] == "port_shared"]
