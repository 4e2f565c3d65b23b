"""The tool `work` on fastmcp for Python: `pip install fastmcp` (seen with 4.2.3)."""

from __future__ import annotations

import sys

from fastmcp import Context, FastMCP
from work import work as do_work

server = FastMCP("cancel-lab")


@server.tool
async def work(run: str, seconds: float, progress: int, context: Context) -> str:
    """Work for some seconds and report its own life."""
    return await do_work(run, seconds, progress, context.report_progress)


if __name__ == "__main__":
    server.run(
        transport="http",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        path="/mcp",
        show_banner=False,
        log_level="WARNING",
    )
