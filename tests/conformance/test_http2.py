"""No HTTP/2 bytes end the process or touch a neighbour, and each gets its answer."""

from __future__ import annotations

import pytest

from tests.conformance.cases_http2 import CASES, Case
from tests.conformance.witness import undisturbed
from tests.support.server import frames
from tests.support.server.client import Client
from tests.support.server.servers import ServerProcess


def outcome(seen: list[frames.Seen]) -> set[str]:
    """Name what was seen the way a case expects it."""
    named = {f"{s.kind} {s.value}" for s in seen if s.kind in {"goaway", "reset"}}
    named |= {f"{s.stream}: ended" for s in seen if s.ended}
    return named | {f"{s.stream}: {s.value}" for s in seen if s.kind == "headers"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_hostile_frames_get_their_answer(
    server: ServerProcess, case: Case
) -> None:
    """A stream's fault is answered on its stream, a connection's with a GOAWAY."""
    wanted = case.expect - {"closed"}

    async def hostile() -> None:
        async with await Client.connect(server.port) as client:
            await client.say(case.hello + case.data)
            if "closed" in case.expect:
                await client.read_to_end()
                seen = (
                    [] if case.expect == {"closed"} else frames.parse(client.received)
                )
            else:
                seen = await client.frames_until(lambda s: wanted <= outcome(s))
            assert wanted <= outcome(seen)

    await undisturbed(server, hostile)
