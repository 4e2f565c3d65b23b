"""mcp 2.3.0: a client that is cancelled while it connects raises MCPError."""

# flake8: noqa
import trio
from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer


async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def main() -> None:
    for attempt in range(400):
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_after, attempt % 20, scope)
                    async with Client(MCPServer("x")):
                        await trio.sleep(1)
        except BaseException as error:
            print(f"attempt {attempt}: a cancel became", repr(error)[:150])
            break


trio.run(main)
