"""The two tools of docs/mcp-conformance, on the Python SDK: `pip install mcp uvicorn`.

`python conformance_fixture.py PORT [deaf]`; the deaf one works on when it is cancelled,
so the scenario must fail.
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

STEP_S = 0.01
server = MCPServer("cancel-lab-conformance", version="1")
states: dict[str, str] = {}


async def _work(run: str, seconds: float, progress: int, context: Context) -> str:
    states[run] = "working"
    try:
        for step in range(int(seconds / STEP_S)):
            if step < progress:
                await context.report_progress(step + 1)
            await asyncio.sleep(STEP_S)
    except asyncio.CancelledError:
        states[run] = "cancelled"
        raise
    states[run] = "finished"
    return run


@server.tool()
async def test_cancellable_work(
    run: str, seconds: float, progress: int, context: Context
) -> str:
    """Work for some seconds; stop when the request is cancelled."""
    working = _work(run, seconds, progress, context)
    if "deaf" in sys.argv:
        return await asyncio.shield(working)
    return await working


@server.tool()
async def test_cancellable_work_state(run: str) -> str:
    """Say what became of the work: unknown, working, cancelled or finished."""
    return states.get(run, "unknown")


if __name__ == "__main__":
    app = server.streamable_http_app()
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
