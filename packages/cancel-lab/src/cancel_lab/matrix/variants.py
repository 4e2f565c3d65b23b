"""What else can stand around a stream: another API, another way to upstream, a proxy.

Every variant is this server in the patient configuration, and its cells are few: what
is asked is whether a cancel still goes all the way, and how long that takes.
"""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cancel_lab.process import free_port, serving
from cancel_lab.upstream import Upstream


class Variant(enum.StrEnum):
    """What is not as in the plain cells."""

    PLAIN = ""
    CHAT_COMPLETIONS = "/v1/chat/completions"
    MESSAGES = "/v1/messages"
    RESPONSES = "/v1/responses"
    RESUMABLE = "a grace of 0.3 s"
    UPSTREAM_TLS = "upstream over TLS"
    UPSTREAM_PROXY = "upstream over TLS, through a proxy"
    REDIS = "limits in Redis"
    NGINX = "behind nginx"
    CADDY = "behind Caddy"
    HAPROXY = "behind HAProxy"
    ENVOY = "behind Envoy"


GRACE_S = 0.3
SAID = "Tell me about nurseries."
_MESSAGES = f'"messages":[{{"role":"user","content":"{SAID}"}}]'
BODIES = {
    Variant.CHAT_COMPLETIONS: f'{{"model":"{{model}}","stream":true,{_MESSAGES}}}',
    Variant.MESSAGES: (
        f'{{"model":"{{model}}","stream":true,"max_tokens":1000,{_MESSAGES}}}'
    ),
    Variant.RESPONSES: f'{{"model":"{{model}}","stream":true,"input":"{SAID}"}}',
}
HEADERS = {Variant.RESUMABLE: {"x-stream-grace": f"{GRACE_S:g}"}}
PROGRAMS = {
    Variant.REDIS: "redis-server",
    Variant.NGINX: "nginx",
    Variant.CADDY: "caddy",
    Variant.HAPROXY: "haproxy",
    Variant.ENVOY: "envoy",
}
FRONTS = (Variant.NGINX, Variant.CADDY, Variant.HAPROXY, Variant.ENVOY)

# None holds events back; all else is as the program has it. Caddy needs to be told
# nothing: a negative flush_interval would let requests outlive their clients.
_NGINX = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""
_CADDY = """
{{
    admin off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{backend}
}}
"""
_HAPROXY = """
global
    maxconn 1000
defaults
    mode http
    # Without it a client that leaves early is noticed when the answer comes.
    option abortonclose
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen chat
    bind 127.0.0.1:{port}
    server gateway 127.0.0.1:{backend}
"""
_ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: chat
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: chat
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: gateway, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: gateway
    connect_timeout: 5s
    load_assignment:
      cluster_name: gateway
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {backend}}}}}
"""  # noqa: E501 - the names of types are as long as that


def missing(variant: Variant) -> str | None:
    """Return why a variant cannot be made here, ``None`` if it can."""
    program = PROGRAMS.get(variant)
    if program is None or _program(program):
        return None
    return f"not installed: {program}"


ASKS_VERSION = {"nginx": "-v", "caddy": "version", "haproxy": "-v"}


def versions() -> dict[str, str]:
    """Return what the programs of the variants say of themselves; ``-`` is absent."""
    return {name: _version(name) for name in PROGRAMS.values()}


def _version(name: str) -> str:
    program = _program(name)
    if program is None:
        return "-"
    asked = subprocess.run(  # noqa: S603 - no shell, fixed programs
        [program, ASKS_VERSION.get(name, "--version")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    # Envoy says where it lies; that is nobody's business in a published manifest.
    return " ".join(asked.stdout.replace(program, name).split())[:100]


def _program(name: str) -> str | None:
    """Return where a program is: on the path, or beside this Python (Envoy's wheel)."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:{beside}")


def _command(variant: Variant, folder: Path, port: int, backend: int) -> list[str]:
    program = _program(PROGRAMS[variant])
    assert program is not None
    templates = {
        Variant.NGINX: ("nginx.conf", _NGINX),
        Variant.CADDY: ("Caddyfile", _CADDY),
        Variant.HAPROXY: ("haproxy.cfg", _HAPROXY),
        Variant.ENVOY: ("envoy.yaml", _ENVOY),
    }
    name, template = templates[variant]
    path = folder / name
    path.write_text(template.format(port=port, backend=backend), encoding="utf-8")
    arguments = {
        Variant.NGINX: ["-e", "stderr", "-p", str(folder), "-c", str(path)],
        Variant.CADDY: ["run", "--config", str(path), "--adapter", "caddyfile"],
        Variant.HAPROXY: ["-db", "-f", str(path)],
        Variant.ENVOY: ["-c", str(path), "-l", "error", "--disable-hot-restart",
                        "--concurrency", "1"],
    }  # fmt: skip
    return [program, *arguments[variant]]


@asynccontextmanager
async def front(variant: Variant, backend: int) -> AsyncIterator[int | None]:
    """Run the proxy of a variant before a port, and yield its own; or ``None``."""
    if variant not in FRONTS:
        yield None
        return
    with TemporaryDirectory(prefix="cancel-lab-") as folder:
        port = free_port()
        command = _command(variant, Path(folder), port, backend)
        async with serving(command, {"HOME": folder}, port=port):
            yield port


@asynccontextmanager
async def surroundings(
    variant: Variant, upstream: Upstream
) -> AsyncIterator[dict[str, str]]:
    """Run what a variant's server needs, and yield the settings that lead to it."""
    if variant is Variant.REDIS:
        program, port = _program(PROGRAMS[variant]), free_port()
        assert program is not None
        argv = [program, "--port", str(port), "--bind", "127.0.0.1"]
        argv += ["--save", "", "--appendonly", "no"]
        async with serving(argv, {}, port=port):
            yield {"REDIS_URL": f"redis://127.0.0.1:{port}"}
        return
    if variant not in (Variant.UPSTREAM_TLS, Variant.UPSTREAM_PROXY):
        yield {}
        return
    env = {
        "OPENROUTER_BASE_URL": upstream.tls_base_url,
        "SSL_CERT_FILE": str(upstream.authority),
    }
    if variant is Variant.UPSTREAM_TLS:
        yield env
        return
    port = free_port()
    argv = [sys.executable, "-m", "cancel_lab.forward_proxy", str(port)]
    async with serving(argv, {}, port=port):
        yield env | {"HTTPS_PROXY": f"http://127.0.0.1:{port}"}
