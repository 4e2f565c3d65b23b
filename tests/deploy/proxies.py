"""The proxy configurations of docs/deploy, started as real proxies."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from cancel_lab.process import free_port
from tests.support.serving import until
from trio_ai_stream.server.certificate import write

DEPLOY: Final = Path(__file__).parent.parent.parent / "docs" / "deploy"
KINDS: Final = ("nginx", "caddy", "haproxy", "envoy")
BACKEND: Final = "127.0.0.1:8080"
NGINX: Final = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {}
}}
"""


class Proxy(NamedTuple):
    """A running proxy: its port for HTTP/1.1, and how curl asks it over HTTP/2."""

    kind: str
    port: int
    http2: tuple[str, ...]


def replaced(name: str, *pairs: tuple[str, str]) -> str:
    """Return a file of docs/deploy with other addresses; each must have stood there."""
    text = (DEPLOY / name).read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def _nginx(folder: Path, backend: str, port: int, secure: int) -> list[str]:
    text = replaced(
        "nginx.conf",
        (BACKEND, backend),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("# listen 443 ssl", f"listen 127.0.0.1:{secure} ssl"),
        ("# ssl_certificate     /etc/ssl/chat.pem", "ssl_certificate dev-cert.pem"),
        ("# ssl_certificate_key /etc/ssl/chat.key", "ssl_certificate_key dev-key.pem"),
    )
    (folder / "conf").write_text(NGINX.format(text))
    return ["-e", "stderr", "-p", str(folder), "-c", "conf"]


def _caddy(folder: Path, backend: str, port: int, secure: int) -> list[str]:
    plain = ("chat.example.com", f"http://127.0.0.1:{port}")
    tls = (
        "chat.example.com {",
        f"https://127.0.0.1:{secure} {{\n"
        f"\ttls {folder / 'dev-cert.pem'} {folder / 'dev-key.pem'}",
    )
    words = ["caddy", "version"]
    version = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    buffers = "request_buffers 32MiB"
    name = "buffer_requests" if version.startswith("2.6.2") else buffers
    sites = [
        replaced("Caddyfile", (BACKEND, backend), (buffers, name), site)
        for site in (plain, tls)
    ]
    text = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + "\n".join(sites)
    (folder / "Caddyfile").write_text(text)
    config = str(folder / "Caddyfile")
    return ["run", "--config", config, "--adapter", "caddyfile"]


def _haproxy(folder: Path, backend: str, port: int, secure: int) -> list[str]:
    pair = [(folder / f"dev-{name}.pem").read_text() for name in ("cert", "key")]
    (folder / "chat.pem").write_text("".join(pair))
    text = replaced(
        "haproxy.cfg",
        (BACKEND, backend),
        ("bind :80\n", f"bind 127.0.0.1:{port}\n"),
        ("maxconn 20000", "maxconn 1000"),  # descriptors of the test's machine
        ("# bind :443", f"bind 127.0.0.1:{secure}"),
        ("/etc/haproxy/chat.pem", str(folder / "chat.pem")),
    )
    (folder / "haproxy.cfg").write_text(text)
    return ["-db", "-f", str(folder / "haproxy.cfg")]


def _envoy(folder: Path, backend: str, port: int, _secure: int) -> list[str]:
    host, _, backend_port = backend.rpartition(":")
    text = replaced(
        "envoy.yaml",
        (
            "address: 0.0.0.0, port_value: 10000",
            f"address: 127.0.0.1, port_value: {port}",
        ),
        (
            "address: trio-ai-stream, port_value: 8080",
            f"address: {host}, port_value: {backend_port}",
        ),
        ("STRICT_DNS", "STATIC"),
    )
    (folder / "envoy.yaml").write_text(text)
    return [
        *("-c", str(folder / "envoy.yaml"), "-l", "warning"),
        *("--disable-hot-restart", "--concurrency", "1"),
    ]


_ARGUMENTS: Final = {
    "nginx": _nginx,
    "caddy": _caddy,
    "haproxy": _haproxy,
    "envoy": _envoy,
}


@contextmanager
def running(kind: str, folder: Path, backend: str) -> Iterator[Proxy]:
    """Run a proxy with our configuration, but for its addresses, before `backend`."""
    program = shutil.which(kind, path=_PATH)
    if program is None:
        pytest.skip(f"there is no {kind}: apt-get install {kind}; pip's for envoy")
    write(folder)
    port, secure = free_port(), free_port()
    words = [program, *_ARGUMENTS[kind](folder, backend, port, secure)]
    environ = {"HOME": str(folder), "PATH": _PATH}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, env=environ, cwd=folder
        )
    http2: tuple[str, ...] = ("-k", "--http2", f"https://127.0.0.1:{secure}")
    if kind == "envoy":  # our file for it has no TLS
        http2 = ("--http2-prior-knowledge", f"http://127.0.0.1:{port}")

    def listens() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(listens)
        yield Proxy(kind, port, http2)
    finally:
        process.terminate()
        process.wait(10)


# Debian's places, and the virtual environment, where Envoy is a Python package.
_PATH: Final = f"/usr/sbin:/usr/bin:/bin:{Path(sys.executable).parent}"
