"""mcp 2.3.0: sooner or later a timeout of a connecting client becomes an MCPError."""

import random

import trio
from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer


async def main():
    while True:
        with trio.move_on_after(random.uniform(0, 0.01)):
            async with Client(MCPServer("x")):
                await trio.sleep(1)


trio.run(main)
