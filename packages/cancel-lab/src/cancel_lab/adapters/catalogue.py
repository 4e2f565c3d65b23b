"""The adapters that ship: this server and those it is compared with.

The comparison servers run with their defaults, because those are what their users get;
each gets one shared httpx client without a connection limit, so that pool waits, which
facts/httpx.md measures, do not stand between a cancel and what is measured here.
"""

from __future__ import annotations

import dataclasses
import secrets

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.adapters.install import (
    go_program,
    go_repository,
    node_package,
    python_packages,
)
from cancel_lab.clients.acts import Transport

APPS = "cancel_lab.adapters.apps"
UPSTREAM_ENV = {"UPSTREAM_URL": "{upstream}"}
DUMMY_KEY = "lab-key"  # the simulator takes any key; servers insist on one
LITELLM_KEY = f"sk-{secrets.token_hex(32)}"  # it refuses to start with a weak one


def _hypercorn(app: str, worker: str) -> tuple[str, ...]:
    bind = "127.0.0.1:{port}"
    program = ("{python}", "-m", "hypercorn", "-k", worker, "-b", bind)
    return (*program, f"{APPS}.{app}:app")


def _uvicorn(app: str) -> tuple[str, ...]:
    program = ("{python}", "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}")
    return (*program, "--log-level", "warning", f"{APPS}.{app}:app")


OURS = Adapter(
    name="trio-ai-stream",
    title="trio-ai-stream",
    argv=("{python}", "-m", "trio_ai_stream", "serve"),
    env={
        "UPSTREAM": "openrouter",
        "OPENROUTER_API_KEY": DUMMY_KEY,
        "OPENROUTER_BASE_URL": "{upstream}",
        "HOST": "127.0.0.1",
        "PORT": "{port}",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "INFO",
        "RATE_LIMIT": "1000000",
        "MAX_CONCURRENT_STREAMS": "10000",
    },
    transports=frozenset({Transport.H1, Transport.H1_PIPELINED, Transport.H2C}),
    requires=("trio_ai_stream",),
    package="trio-ai-stream",
)

NAIVE = Adapter(
    name="naive-quart-trio",
    title="naive Quart-Trio",
    argv=_hypercorn("naive_quart_trio", "trio"),
    env=UPSTREAM_ENV,
    transports=frozenset({Transport.H1, Transport.H1_PIPELINED, Transport.H2C}),
    requires=("hypercorn", "quart_trio", "httpx"),
    package="quart-trio",
)

FASTAPI_GENERATOR = Adapter(
    name="fastapi-generator",
    title="FastAPI + uvicorn, upstream opened in the generator",
    argv=_uvicorn("fastapi_generator"),
    env=UPSTREAM_ENV,
    requires=("fastapi", "uvicorn", "httpx"),
    package="fastapi",
)

FASTAPI_AWAITED = Adapter(
    name="fastapi-awaited",
    title="FastAPI + uvicorn, upstream awaited before the response",
    argv=_uvicorn("fastapi_awaited"),
    env=UPSTREAM_ENV,
    requires=("fastapi", "uvicorn", "httpx"),
    package="fastapi",
)

HYPERCORN_ASYNCIO = Adapter(
    name="hypercorn-asyncio",
    title="FastAPI + Hypercorn's asyncio worker",
    argv=_hypercorn("fastapi_generator", "asyncio"),
    env=UPSTREAM_ENV,
    transports=frozenset({Transport.H1, Transport.H1_PIPELINED, Transport.H2C}),
    requires=("fastapi", "hypercorn", "httpx"),
    package="hypercorn",
)

SSE_STARLETTE = Adapter(
    name="sse-starlette",
    title="sse-starlette + uvicorn",
    argv=_uvicorn("sse_starlette_relay"),
    env=UPSTREAM_ENV,
    requires=("sse_starlette", "starlette", "uvicorn", "httpx"),
    package="sse-starlette",
)

AIOHTTP = Adapter(
    name="aiohttp",
    title="aiohttp, as it comes",
    argv=("{home}/bin/python", "{apps}/aiohttp_relay.py", "{port}"),
    env=UPSTREAM_ENV,
    install=python_packages("aiohttp", "aiohttp"),
)

AIOHTTP_CANCELLED = dataclasses.replace(
    AIOHTTP,
    name="aiohttp-cancelled",
    home_of="aiohttp",
    title="aiohttp, handler_cancellation=True",
    argv=(*AIOHTTP.argv, "cancelled"),
)

# Both run the program of FASTAPI_GENERATOR; PYTHONPATH leads to it, and to nothing else
# that an environment of their own could take for a package.
ELSEWHERE_ENV = {**UPSTREAM_ENV, "PYTHONPATH": "{apps}/.."}
FRAMEWORK = ("fastapi", "httpx")

ANYCORN = Adapter(
    name="anycorn",
    title="FastAPI + anycorn",
    argv=(
        *("{home}/bin/python", "-m", "anycorn", "-b", "127.0.0.1:{port}"),
        "apps.fastapi_generator:app",
    ),
    env=ELSEWHERE_ENV,
    transports=frozenset({Transport.H1, Transport.H1_PIPELINED, Transport.H2C}),
    install=python_packages("anycorn", "anycorn", *FRAMEWORK),
)

GRANIAN = Adapter(
    name="granian",
    title="FastAPI + granian",
    argv=(
        *("{home}/bin/python", "-m", "granian", "--interface", "asgi"),
        *("--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
        "apps.fastapi_generator:app",
    ),
    env=ELSEWHERE_ENV,
    transports=frozenset({Transport.H1, Transport.H1_PIPELINED, Transport.H2C}),
    install=python_packages("granian", "granian", *FRAMEWORK),
)

GO = Adapter(
    name="go-net-http",
    title="Go net/http, the request's context passed on",
    argv=("{home}/server", "{port}"),
    env=UPSTREAM_ENV,
    install=go_program("go_relay"),
)

# Its upstream and its model stand in its source; those three places are edited.
ORIGINAL = Adapter(
    name="golang-ai-stream",
    title="the original Go server",
    argv=("{home}/server",),
    env={
        "OPENROUTER_API_KEY": DUMMY_KEY,
        "OPENROUTER_BASE_URL": "{upstream}",
        "PORT": "127.0.0.1:{port}",
        "RATE_LIMIT": "1000000",
    },
    install=go_repository(
        "https://github.com/rezashahnazar/golang-ai-stream.git",
        ("config/config.go", 's#"https://.*/api/v1"#os.Getenv("OPENROUTER_BASE_URL")#'),
        ("handlers/chat.go", 's#"anthropic/claude-3.5-sonnet"#reqBody.Model#'),
        ("models/chat.go", r's#^\( *\)Prompt .*#&\n\1Model string `json:"model"`#'),
    ),
)

OPENAI_BODY = (
    '{"model":"{model}","stream":true,'
    '"messages":[{"role":"user","content":"Tell me about nurseries."}]}'
)

LITELLM = Adapter(
    name="litellm",
    title="LiteLLM proxy",
    argv=(
        *("{home}/bin/python", "{apps}/litellm_proxy.py"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ),
    env={**UPSTREAM_ENV, "LITELLM_MASTER_KEY": LITELLM_KEY},
    path="/v1/chat/completions",
    body=OPENAI_BODY,
    headers={
        "content-type": "application/json",
        "authorization": f"Bearer {LITELLM_KEY}",
    },
    install=python_packages("litellm", "litellm[proxy]"),
    ready_within_s=90.0,
)

# With the newest @hono/node-server that it may have, the headers of an answer cannot be
# changed, and it answers every stream with "Something went wrong".
PORTKEY_OVERRIDES = {"@hono/node-server": "1.13.8"}
PORTKEY_PROGRAM = "build/start-server.js"
PORTKEY = Adapter(
    name="portkey",
    title="Portkey gateway",
    argv=(
        *("node", f"{{home}}/node_modules/@portkey-ai/gateway/{PORTKEY_PROGRAM}"),
        *("--headless", "--port={port}"),
    ),
    path="/v1/chat/completions",
    body=OPENAI_BODY,
    headers={
        "content-type": "application/json",
        "authorization": f"Bearer {DUMMY_KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": "{upstream}",
    },
    install=node_package("@portkey-ai/gateway", PORTKEY_PROGRAM, **PORTKEY_OVERRIDES),
)

# The package is a launcher that downloads the gateway when it is started, so where that
# download is not allowed the records say so.
BIFROST = Adapter(
    name="bifrost",
    title="Bifrost",
    argv=(
        *("node", "{home}/node_modules/@maximhq/bifrost/bin.js"),
        *("-host", "127.0.0.1", "-port", "{port}", "-app-dir", "{home}/app"),
    ),
    env=UPSTREAM_ENV,
    path="/v1/chat/completions",
    body=OPENAI_BODY,
    install=node_package("@maximhq/bifrost", "bin.js"),
    ready_within_s=60.0,
)

ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        OURS,
        NAIVE,
        FASTAPI_GENERATOR,
        FASTAPI_AWAITED,
        HYPERCORN_ASYNCIO,
        ANYCORN,
        GRANIAN,
        SSE_STARLETTE,
        AIOHTTP,
        AIOHTTP_CANCELLED,
        GO,
        ORIGINAL,
        LITELLM,
        PORTKEY,
        BIFROST,
    )
}
