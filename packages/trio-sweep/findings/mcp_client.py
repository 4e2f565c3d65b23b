"""mcp: a client and a server in one process, over AnyIO on Trio."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import anyio
from common import main, use
from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer


def server_of(env):
    """Make a server with one slow tool."""
    server = MCPServer("x")

    @server.tool()
    async def slow(n: int) -> str:
        env.running += 1
        try:
            await anyio.sleep(1)
            return f"ok{n}"
        finally:
            env.running -= 1

    return server


@contextlib.asynccontextmanager
async def connected():
    """Yield a client that is connected."""
    env = SimpleNamespace(running=0)
    async with Client(server_of(env)) as env.client:
        yield env


@contextlib.asynccontextmanager
async def bare():
    """Yield a server without a client."""
    env = SimpleNamespace(running=0)
    env.server = server_of(env)
    yield env


async def call(env) -> None:
    """Call the tool."""
    assert "ok1" in str(await env.client.call_tool("slow", {"n": 1}))


async def connect(env) -> None:
    """Connect and call the tool."""
    async with Client(env.server) as client:
        await client.call_tool("slow", {"n": 1})


def check(env):
    """Complain about tools that go on."""
    return ["a tool call goes on at the server"] * env.running


use("mcp", "call_tool", call, world=connected, after=call, check=check)
use("mcp", "connect and call", connect, world=bare, after=connect, check=check)

if __name__ == "__main__":
    main()
