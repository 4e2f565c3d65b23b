"""`trio-ai-stream pstree`, of a real server."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.process import curl, server
from trio_ai_stream.chat_client.process_tree import lines, readable_address
from trio_ai_stream.server.certificate import write

VIEW = {
    "now": 10.0,
    "total": 3,
    "more": 1,
    "streams": [
        {
            "id": "one",
            "state": "streaming",
            "outcome": None,
            "model": "m",
            "began_at": 8.5,
            "events": 7,
            "task": {
                "name": "stream one",
                "nurseries": [
                    {
                        "label": "stream",
                        "scopes": [
                            {"label": "stop", "due": None, "shield": False},
                            {"label": "idle", "due": 15.25, "shield": True},
                        ],
                        "tasks": [{"name": "heartbeat", "nurseries": []}],
                    }
                ],
            },
        },
        {
            "id": "two",
            "state": "ending",
            "outcome": "cancelled",
            "model": "m",
            "began_at": 9.0,
            "events": 0,
            "task": None,
        },
    ],
}


def test_a_snapshot_is_drawn_as_a_tree() -> None:
    """Tasks, nurseries, scopes with what is left of them, shields, and the rest."""
    assert list(lines(VIEW)) == [
        "3 live streams",
        "├─ one  streaming  m  1.5 s  7 events",
        "│  └─ task stream",
        "│     └─ nursery stream",
        "│        ├─ scope stop",
        "│        ├─ scope idle  due in 5.2 s  shielded",
        "│        └─ task heartbeat",
        "├─ two  cancelled  m  1.0 s  0 events",
        "└─ and 1 more",
    ]


def test_a_snapshot_that_is_not_complete_says_so() -> None:
    """A server of before says nothing of it."""
    nothing = {"now": 10.0, "total": 0, "more": 0, "streams": []}
    said = "Not all processes answered: there may be streams that are not listed."
    assert list(lines({**nothing, "complete": False})) == ["0 live streams", said]
    assert list(lines({**nothing, "complete": True})) == ["0 live streams"]
    assert list(lines(nothing)) == ["0 live streams"]


async def test_a_servers_streams_are_shown_by_url_and_by_process_id() -> None:
    """The process of a server stands for where it listens; others say what to do."""
    async with server(UPSTREAM="simulator") as s, trio.open_nursery() as nursery:
        url = f"http://127.0.0.1:{s.port}"
        data = {"prompt": "x", "model": "simulator/endless"}
        nursery.start_soon(partial(curl, f"{url}/chat", data=data, check=False))
        with trio.fail_after(20):
            while "scope deadline" not in (shown := await pstree(url)):
                pass
        assert "1 live stream\n" in shown
        assert "streaming  simulator/endless" in shown or "waiting" in shown
        assert "1 live stream\n" in await pstree(str(s.process.pid))
        nursery.cancel_scope.cancel(reason="seen")
    async with trio.open_nursery() as nursery:
        silent = await nursery.start(trio.run_process, ["sleep", "60"])
        assert "listens on no TCP port" in await pstree(str(silent.pid))
        nursery.cancel_scope.cancel(reason="seen")
    assert "got: " in await pstree("http://127.0.0.1:1")


async def test_a_server_with_tls_and_keys_is_found_by_its_process(
    tmp_path: Path,
) -> None:
    """Over IPv6 as well; without the key or the certificate it is said what to do."""
    certificate, key = write(tmp_path)
    files = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    ca = ["--ca", str(tmp_path / "dev-ca.pem")]
    async with server(HOST="::", API_KEYS="a-key-of-pstree", **files) as s:
        pid = str(s.process.pid)
        assert "certificate" in await pstree(pid)
        assert "it wants a key (--key)" in await pstree(pid, *ca)
        assert "0 live" in await pstree(pid, *ca, "--key", "a-key-of-pstree")


@pytest.mark.skipif(sys.byteorder != "little", reason="as it is printed here")
@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("0100007F:1F90", "127.0.0.1:8080"),
        ("00000000:0050", "127.0.0.1:80"),
        ("0200A8C0:0050", "192.168.0.2:80"),
        ("00000000000000000000000000000000:1F90", "[::1]:8080"),
        ("B80D0120000000000000000001000000:0050", "[2001:db8::1]:80"),
    ],
)
def test_the_kernels_addresses_are_read(shown: str, address: str) -> None:
    """All addresses stand for loopback."""
    assert readable_address(shown) == address


async def pstree(*words: str) -> str:
    """Return what the command prints."""
    command = [sys.executable, "-m", "trio_ai_stream", "pstree", *words]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False
    )
    return (done.stdout + done.stderr).decode()
