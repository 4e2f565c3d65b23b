"""SIGHUP: keys, limits and certificates are read again, and no connection is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import sys
from pathlib import Path

import pytest
import trio

from tests.support.process import HYPERCORN, ROOT, SERVE, children, server
from tests.support.server.client import Client, status_of
from trio_ai_stream.server import certificate
from trio_ai_stream.settings import SETTINGS
from trio_ai_stream.settings.loading import RELOADED

# The server reads `.env` where it stands, which must not be the repository.
IN_FOLDER = (
    "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.executable, sys.argv[2:])"
)
TOML = str(ROOT / "hypercorn.toml")
HYPER = [*HYPERCORN[:-1], TOML, "-b", "127.0.0.1:0", "trio_ai_stream.app:app"]
BODY = b'{"model":"simulator/default?chunks=30&delay_ms=100","prompt":"hi"}'


def _in_folder(folder: Path, command: list[str]) -> list[str]:
    return [sys.executable, "-c", IN_FOLDER, str(folder), *command]


def _write(folder: Path, key: str, **settings: str) -> None:
    (folder / "keys").write_text(key)
    lines = [f"{name}={value}" for name, value in settings.items()]
    (folder / ".env").write_text("\n".join([*lines, f"API_KEYS_FILE={folder}/keys"]))


def _ask(key: str, method: bytes = b"GET", path: bytes = b"/v1/models") -> bytes:
    body = BODY if method == b"POST" else b""
    lines = [
        b"%b %b HTTP/1.1" % (method, path),
        b"host: localhost",
        b"authorization: Bearer " + key.encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def _status(port: int, key: str) -> tuple[int, bytes]:
    async with await Client.connect(port) as client:
        await client.say(_ask(key))
        head = await client.read_until(lambda data: b"\r\n\r\n" in data)
        return status_of(head), head.lower()


@pytest.mark.parametrize(
    ("command", "workers"),
    [(SERVE, 1), (SERVE, 2), (HYPER, 1)],
    ids=["serve", "serve-2", "hypercorn"],
)
async def test_keys_and_limits_are_read_again(
    command: list[str], workers: int, tmp_path: Path
) -> None:
    """The old key is refused, the new limit counts, and the live stream goes on."""
    first, second = "first-key-0123456789", "second-key-0123456789"
    _write(tmp_path, first, RATE_LIMIT="100")
    with trio.fail_after(60):
        async with server(
            _in_folder(tmp_path, command), WORKERS=str(workers)
        ) as running:
            await running.listening(workers)
            async with await Client.connect(running.port) as live:
                await live.say(_ask(first, b"POST", b"/chat"))
                await live.read_until(lambda data: b'"content"' in data)
                _write(tmp_path, second, RATE_LIMIT="50", HEARTBEAT_SECS="7")
                running.process.send_signal(signal.SIGHUP)
                await running.logged("restart_needed", workers)
                assert (await _status(running.port, first))[0] == 401
                status, head = await _status(running.port, second)
                assert status == 200
                assert b"q=50" in head
                said = [r for r in running.records if r["event"] == "restart_needed"]
                assert [r["settings"] for r in said] == [["HEARTBEAT_SECS"]] * workers
                _write(tmp_path, "third-key-0123456789", RATE_LIMIT="many")
                running.process.send_signal(signal.SIGHUP)
                await running.logged("reload_failed", workers)
                assert (await _status(running.port, second))[0] == 200
                assert b'"type":"done"' in await live.read_to_end_of_stream()
            assert await running.stop() == 0
    log = "\n".join(running.lines)
    assert "RATE_LIMIT: expected a number that is more than 0" in log
    assert not any(key in log for key in [first, second, "third-key"])


async def test_limits_of_named_keys_are_read_again(tmp_path: Path) -> None:
    """Those of a key that had others, and of one that is new."""
    file = tmp_path / "keys.toml"

    def write(**rates: int) -> None:
        file.write_text(
            "".join(
                f"[[key]]\nname = '{name}'\nkey = 'key-of-{name}'\n"
                f"requests_per_second = {rate}\n"
                for name, rate in rates.items()
            )
        )

    write(a=90)
    with trio.fail_after(60):
        async with server(SERVE, KEYS_FILE=str(file)) as running:
            status, head = await _status(running.port, "key-of-a")
            assert (status, b"q=90" in head) == (200, True)
            write(a=80, b=70)
            running.process.send_signal(signal.SIGHUP)
            await running.logged("reloaded")
            for name, quota in (("a", b"q=80"), ("b", b"q=70")):
                status, head = await _status(running.port, f"key-of-{name}")
                assert (status, quota in head) == (200, True)
            assert await running.stop() == 0


async def test_a_worker_in_anothers_place_has_the_settings_in_force(
    tmp_path: Path,
) -> None:
    """Those of the start or of the last reload, not what `.env` has become since."""
    first, second = "first-key-0123456789", "second-key-0123456789"
    _write(tmp_path, first, RATE_LIMIT="100")
    with trio.fail_after(90):
        async with server(_in_folder(tmp_path, SERVE), WORKERS="2") as running:
            await running.listening(2)

            async def replace_both(listening: int) -> None:
                for pid in children(running.process.pid):
                    os.kill(pid, signal.SIGKILL)
                await running.listening(listening)

            _write(tmp_path, "other-key-0123456789", RATE_LIMIT="many")
            await replace_both(4)
            assert b"q=100" in (await _status(running.port, first))[1]
            _write(tmp_path, second, RATE_LIMIT="50", HEARTBEAT_SECS="7")
            running.process.send_signal(signal.SIGHUP)
            await running.logged("restart_needed", 2)
            (tmp_path / "keys").unlink()
            await replace_both(6)
            assert b"q=50" in (await _status(running.port, second))[1]
            assert (await _status(running.port, first))[0] == 401
            # The new ones know as well what has changed and waits for a restart.
            _write(tmp_path, second, RATE_LIMIT="50", HEARTBEAT_SECS="7")
            running.process.send_signal(signal.SIGHUP)
            await running.logged("restart_needed", 4)
            said = [r for r in running.records if r["event"] == "restart_needed"]
            assert [r["settings"] for r in said] == [["HEARTBEAT_SECS"]] * 4
            assert await running.stop() == 0
    assert not any(line.startswith("bad settings") for line in running.lines)


def test_what_is_read_again_is_documented() -> None:
    """The operator's table and the code name the same settings."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## Reload\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith(("| k", "| l"))]
    named = {name for row in rows for name in re.findall("`([A-Z0-9_]+)`", row)}
    assert named == RELOADED <= set(SETTINGS)


async def test_a_certificate_is_read_again(tmp_path: Path) -> None:
    """New connections get it, open ones go on; one that cannot be used is said."""
    for name in ("old", "new"):
        certificate.write(tmp_path / name)
    (tmp_path / "now").mkdir()

    def put(name: str, *files: str) -> None:
        for file in files:
            shutil.copy(tmp_path / name / file, tmp_path / "now" / file)

    pair = ("dev-cert.pem", "dev-key.pem")
    put("old", *pair)
    files = {
        "TLS_CERT_FILE": str(tmp_path / "now" / pair[0]),
        "TLS_KEY_FILE": str(tmp_path / "now" / pair[1]),
    }
    with trio.fail_after(60):
        async with server(SERVE, **files) as running:
            before = await _certificate(running.port)
            context = ssl.create_default_context(
                cafile=str(tmp_path / "old" / "dev-ca.pem")
            )
            tcp = await trio.open_tcp_stream("127.0.0.1", running.port)
            open_one = trio.SSLStream(tcp, context, server_hostname="localhost")
            await open_one.do_handshake()
            put("new", *pair)
            running.process.send_signal(signal.SIGHUP)
            await running.logged("certificate_reloaded")
            after = await _certificate(running.port)
            assert after != before
            put("old", pair[0])
            running.process.send_signal(signal.SIGHUP)
            await running.logged("reload_failed")
            await running.logged("reloaded", 2)  # it does not hold up the settings
            assert await _certificate(running.port) == after
            (tmp_path / "now" / pair[0]).unlink()
            os.mkfifo(tmp_path / "now" / pair[0])  # nobody will write into it
            running.process.send_signal(signal.SIGHUP)
            await running.logged("reload_failed", 2)
            await running.logged("reloaded", 3)
            assert await _certificate(running.port) == after
            await open_one.send_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert (await open_one.receive_some()).startswith(b"HTTP/1.1 200")
            await trio.aclose_forcefully(open_one)
            assert await running.stop() == 0


async def _certificate(port: int) -> str:
    return await trio.to_thread.run_sync(
        ssl.get_server_certificate, ("127.0.0.1", port)
    )
