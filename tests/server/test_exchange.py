"""An exchange tells that its client is gone: once, at once, and only who watches."""

from __future__ import annotations

import pytest

from tests.support.server import frames as f
from tests.support.server.client import Client, get
from tests.support.server.servers import LocalServer, serve_while
from trio_ai_stream.server.http_stream import Exchange, HTTPStream
from trio_ai_stream.server.sockets import ClientTransport


@pytest.mark.parametrize("stalled", [False, True])
def test_who_watches_is_told_in_the_same_step_and_once(stalled: bool) -> None:
    """The outcome depends on a stall, so it is set before; later it is only noted."""
    told: list[bool] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.on_disconnect(lambda: told.append(exchange.stalled))
    exchange.disconnect(stalled=stalled)
    assert told == [stalled]
    exchange.disconnect(stalled=True)
    assert told == [stalled]
    assert exchange.stalled


def test_who_comes_late_is_told_at_once() -> None:
    """A client may be gone before its application has begun."""
    told: list[str] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.disconnect()
    exchange.on_disconnect(lambda: told.append("gone"))
    assert told == ["gone"]


def test_who_watches_no_more_is_not_told() -> None:
    """After its end a request must not be held, nor called."""
    told: list[str] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.on_disconnect(lambda: told.append("gone"))
    exchange.ignore_disconnect()
    exchange.disconnect()
    assert told == []


@pytest.mark.parametrize("way", ["HTTP/1.1", "HTTP/2"])
async def test_who_leaves_with_the_last_bytes_has_had_them(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have a turn before the send returns, and find the client gone."""
    ending: list[HTTPStream] = []
    end_written, drain = HTTPStream.end_written, ClientTransport.drain

    async def noted(self: HTTPStream) -> None:
        ending.append(self)
        await end_written(self)

    async def left(self: ClientTransport) -> None:
        if ending:
            ending[0].disconnect()
        await drain(self)

    monkeypatch.setattr(HTTPStream, "end_written", noted)
    monkeypatch.setattr(ClientTransport, "drain", left)

    async def body(server: LocalServer) -> None:
        async with await Client.connect(server.port) as client:
            if way == "HTTP/2":
                await client.say(f.hello() + f.request(1, b"/hello"))
                await client.frames_until(lambda seen: f.ended(seen, 1))
            else:
                await client.say(get("/hello"))
                await client.read_until(lambda data: data.endswith(b"hello"))
        assert ending[0].exchange.delivered
        assert server.application.told == 0

    await serve_while(body)
