"""No HTTP/1.1 bytes end the process or touch a neighbour, and each gets its answer."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest

from tests.conformance.cases_http1 import CASES, Case
from tests.conformance.witness import undisturbed
from tests.support.server.client import Client
from tests.support.server.servers import ServerProcess


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_hostile_bytes_get_their_status(
    server: ServerProcess, case: Case
) -> None:
    """The answer has the fault's status and its phrase, then the connection ends."""

    async def hostile() -> None:
        async with await Client.connect(server.port) as client:
            await client.say(case.data)
            if case.leave == "shut":
                await client.stream.send_eof()
            if case.leave == "reset":
                client.reset()
                return
            answer = await client.read_to_end()
        found = re.findall(rb"HTTP/1\.1 (\d{3}) ([^\r]*)\r\n", answer)
        assert tuple(int(status) for status, _ in found) == case.statuses
        for status, phrase in found:
            assert phrase.decode() == HTTPStatus(int(status)).phrase
        if case.leave == "cut":
            assert not answer.endswith(b"0\r\n\r\n"), "a cut stream looked complete"
        assert b"Traceback" not in answer

    await undisturbed(server, hostile)
