"""The adapters that ship: this server and those it is compared with.

The comparison servers run with their defaults, because those are what their users get;
each gets one shared httpx client without a connection limit, so that pool waits, which
facts/httpx.md measures, do not stand between a cancel and what is measured here.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cancel_lab.adapters.adapter import Adapter
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

LITELLM = Adapter(
    name="litellm",
    title="LiteLLM proxy",
    argv=(
        *("{python}", str(Path(__file__).parent / "apps" / "litellm_proxy.py")),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ),
    env={**UPSTREAM_ENV, "LITELLM_MASTER_KEY": LITELLM_KEY},
    path="/v1/chat/completions",
    body=(
        '{"model":"{model}","stream":true,'
        '"messages":[{"role":"user","content":"Tell me about nurseries."}]}'
    ),
    headers={
        "content-type": "application/json",
        "authorization": f"Bearer {LITELLM_KEY}",
    },
    requires=("litellm", "uvicorn", "fastapi"),
    package="litellm",
    ready_within_s=90.0,
    interpreter_env="LAB_LITELLM_PYTHON",
)

ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        OURS,
        NAIVE,
        FASTAPI_GENERATOR,
        FASTAPI_AWAITED,
        HYPERCORN_ASYNCIO,
        SSE_STARLETTE,
        LITELLM,
    )
}
