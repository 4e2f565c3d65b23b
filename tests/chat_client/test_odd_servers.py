"""The terminal client against servers that answer oddly, or mean ill."""

from __future__ import annotations

import gzip
import io
from contextlib import suppress
from functools import partial

import pytest
import trio

from trio_ai_stream.chat_client.chat_exchange import ChatEnding, ChatExchange
from trio_ai_stream.chat_client.process_tree import main as pstree
from trio_ai_stream.chat_client.screen import Screen
from trio_ai_stream.chat_client.server_client import open_client

HI = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
WHOLE = HI + b"data: [DONE]\n\n"
CUT = b'id: 1\ndata: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
GRACE = "x-stream-grace: 9\r\nx-stream-resume: "
WHY = gzip.compress(b'{"error":"why"}', mtime=0)
ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'


async def answered(status: int, head: str, body: bytes) -> tuple[ChatEnding, str]:
    """Return how an exchange with such a server ended, and what was shown."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(65536)
            start = f"HTTP/1.1 {status} x\r\n{head or 'server: odd'}\r\n\r\n"
            await stream.send_all(start.encode("ascii") + body)
            await stream.aclose()

    out = io.StringIO()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        async with open_client(f"http://127.0.0.1:{port}", "", None) as client:
            with trio.fail_after(5):
                screen = Screen(out, io.StringIO())
                exchange = ChatExchange(client, screen.event, screen.note)
                ending = await exchange.run({"messages": [], "model": "m"})
        nursery.cancel_scope.cancel(reason="asked")
    return ending, out.getvalue()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("content-encoding: gzip", gzip.compress(WHOLE, mtime=0)),
        ("", b"\xef\xbb\xbf" + WHOLE),
        ("", HI.rstrip()),
        ("", CUT + b"data: [DONE]"),
        ("content-type: application/json", ANSWER),
        (f"{GRACE}:80/x", WHOLE),
    ],
    ids=["gzip", "BOM", "no last line", "no line behind DONE", "whole", "no way back"],
)
async def test_an_odd_answer_is_read(head: str, body: bytes) -> None:
    """Compressed, marked, without a last line, or no stream: all of it is shown."""
    ending, shown = await answered(200, head, body)
    assert (ending.code, shown) == (0, "hi"), ending


@pytest.mark.parametrize(
    ("status", "head", "body", "said"),
    [
        (200, "", b'{"error":{"type":"busy","message":"later"}}', "busy: later"),
        (200, "", b'{"choices"', "a JSON document, got neither"),
        (200, "content-type: text/html", b"<html>\n</html>\n", "got text/html"),
        (200, "", b"data: " + b'{"a":' + 99_999 * b"[" + b"\n\n", "something else"),
        (307, "location: https://b.example/v1", b"", "at https://b.example/v1"),
        (400, "content-encoding: gzip", WHY, "why"),
        (200, f"{GRACE}@127.0.0.1:9/x", CUT, "without a last event"),
        (200, f"{GRACE}:80/x", CUT, "without a last event"),
    ],
)
async def test_what_is_no_answer_is_said(
    status: int, head: str, body: bytes, said: str
) -> None:
    """In one line, without a traceback, and no other host is asked."""
    ending, _ = await answered(status, head, body)
    assert ending.code == 1
    assert said in ending.line


def test_another_servers_view_is_no_tree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pstree` says so in one line."""

    async def view(*_: object) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        return {"streams": [{}], "more": 0}

    monkeypatch.setattr("trio_ai_stream.chat_client.process_tree._ask", view)
    assert pstree(["http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
