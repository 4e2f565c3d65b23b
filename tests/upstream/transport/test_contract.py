"""Our transport and httpx's own, side by side against the same server."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.upstream.transport.servers import (
    CHUNKED,
    CLIENT_TLS,
    OK,
    Peer,
    answering,
    serving,
)
from trio_ai_stream.upstream.transport import UpstreamTransport

ANSWERS = {
    "length": OK,
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "chunked": CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "chunk extension": CHUNKED + b"3;x=1\r\nabc\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nall of it",
    "http/1.0": b"HTTP/1.0 200 OK\r\n\r\nall of it",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "103 first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    "529": b"HTTP/1.1 529 Overloaded\r\nContent-Length: 2\r\n\r\nno",
    "repeated headers": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    b"X-Mixed-Case:  padded \r\nContent-Length: 0\r\n\r\n",
    "latin-1 header": b"HTTP/1.1 200 OK\r\nX: \xe9\r\nContent-Length: 0\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 21\r\n\r\n"
    + bytes.fromhex("1f8b08000000000000034b040043beb7e801000000")[:21],
    "closed unanswered": b"",
    "closed in the head": b"HTTP/1.1 200 OK\r\nContent-",
    "closed in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "closed in a chunk": CHUNKED + b"9\r\nabc",
    "closed before the last chunk": CHUNKED + b"3\r\nabc\r\n",
    "not http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "bad chunk size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
}


async def outcome(transport: httpx.AsyncBaseTransport, url: str) -> object:
    """What one GET comes to: the response, or the class of the error."""
    async with httpx.AsyncClient(transport=transport, timeout=5) as client:
        try:
            response = await client.get(url)
        except httpx.TransportError as exc:
            return type(exc)
        return (
            response.status_code,
            response.headers.raw,
            response.content,
            response.http_version,
            response.reason_phrase,
        )


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_response_is_what_httpx_makes_of_it(answer: bytes, tls: bool) -> None:
    """Status, headers, body and error class equal those of httpx's own transport."""
    with trio.fail_after(30):
        async with serving(answering(answer), tls=tls) as server:
            ours = await outcome(UpstreamTransport(ssl_context=CLIENT_TLS), server.url)
            stock = httpx.AsyncHTTPTransport(verify=CLIENT_TLS)
            assert ours == await outcome(stock, server.url)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
async def test_a_request_is_what_httpx_makes_of_it(method: str) -> None:
    """The bytes that reach the server equal those that httpx's transport sends."""
    seen: list[tuple[bytes, bytes]] = []

    async def record(peer: Peer) -> None:
        request = await peer.request()
        assert request is not None
        seen.append((request.head, request.body))
        await peer.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    transports = UpstreamTransport(ssl_context=CLIENT_TLS), httpx.AsyncHTTPTransport()
    with trio.fail_after(30):
        async with serving(record) as server:
            for transport in transports:
                async with httpx.AsyncClient(transport=transport) as client:
                    content = b"some body" if method == "POST" else None
                    url = server.url + "/a%20b?c=d&e=%C3%A9#fragment"
                    await client.request(method, url, content=content)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "url", ["ftp://host/", "unix:///path", "//host/path", "http:///path"]
)
async def test_a_url_without_http_or_host_is_refused(url: str) -> None:
    """Such a URL raises UnsupportedProtocol, as in httpx, before any connection."""
    transport = UpstreamTransport(ssl_context=CLIENT_TLS)
    with pytest.raises(httpx.UnsupportedProtocol):
        await transport.handle_async_request(httpx.Request("GET", url))
    assert transport.statistics().connects == 0


async def test_a_refused_connection_is_a_connect_error() -> None:
    """Nobody listening is a ConnectError, and it is counted."""
    async with serving(answering()) as server:
        port = server.port
    async with httpx.AsyncClient(transport=UpstreamTransport()) as client:
        with trio.fail_after(30), pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/")


async def test_an_untrusted_certificate_is_a_connect_error() -> None:
    """A certificate that the context does not trust ends the dial, and no socket."""
    with trio.fail_after(30):
        async with serving(answering(OK), tls=True) as server:
            transport = UpstreamTransport(ssl_context=httpx.create_ssl_context())
            async with httpx.AsyncClient(transport=transport) as client:
                with pytest.raises(httpx.ConnectError, match="certificate"):
                    await client.get(server.url)
            await server.wait_open(0)
            assert transport.statistics().connect_failures == 1


async def test_a_wrong_host_name_is_a_connect_error() -> None:
    """The certificate must be for the host of the URL."""
    with trio.fail_after(30):
        async with serving(answering(OK), tls=True) as server:
            transport = UpstreamTransport(ssl_context=CLIENT_TLS)
            async with httpx.AsyncClient(transport=transport) as client:
                with pytest.raises(httpx.ConnectError, match=r"127\.0\.0\.2"):
                    await client.get(f"https://127.0.0.2:{server.port}/")


async def test_a_request_error_carries_the_request() -> None:
    """httpx fills in the request of an error, so hooks and logs can name it."""
    with trio.fail_after(30):
        async with (
            serving(answering(b"")) as server,
            httpx.AsyncClient(
                transport=UpstreamTransport(ssl_context=CLIENT_TLS)
            ) as client,
        ):
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await client.get(server.url)
    assert caught.value.request.url.port == server.port
