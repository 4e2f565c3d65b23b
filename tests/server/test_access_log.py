"""Hypercorn's access log, where `accesslog` is set."""

from __future__ import annotations

import logging

import pytest

from tests.support.server.client import ask, get
from tests.support.server.servers import LocalServer, local_config, serve_while


@pytest.mark.parametrize("path", ["/hello", "/stream?n=2&every=0"])
async def test_a_line_says_who_asked_for_what(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request's fields are there at the end, though nothing else keeps them."""
    config = local_config()
    config.accesslog = logging.getLogger("tests.access")

    async def body(server: LocalServer) -> None:
        await ask(server.port, get(path, "User-Agent: visitor/1", "Connection: close"))

    with caplog.at_level(logging.INFO, "tests.access"):
        await serve_while(body, config=config)
    found = [one for one in caplog.records if one.name == "tests.access"]
    (line,) = [one.getMessage() for one in found]
    assert f'"GET {path.partition("?")[0]} 1.1" 200' in line
    assert '"visitor/1"' in line
