"""The tool `work` on the Python SDK: `pip install mcp uvicorn` (seen with 2.3.0).

`python python_sdk.py PORT [uvicorn|hypercorn]`; the second speaks HTTP/2 as well.
"""

from __future__ import annotations

import asyncio
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from work import work as do_work

server = MCPServer("cancel-lab", version="1")


@server.tool()
async def work(run: str, seconds: float, progress: int, context: Context) -> str:
    """Work for some seconds and report its own life."""
    return await do_work(run, seconds, progress, context.report_progress)


def main(port: int, kind: str = "uvicorn") -> None:
    """Serve on loopback until stopped."""
    app = server.streamable_http_app()
    if kind == "hypercorn":
        import hypercorn.asyncio
        import hypercorn.config

        config = hypercorn.config.Config()
        config.bind = [f"127.0.0.1:{port}"]
        asyncio.run(hypercorn.asyncio.serve(app, config))
        return
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
