"""Each way in which a connection fails is told as what it is."""

from __future__ import annotations

import datetime
import os
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import trio
import trustme

from trio_ai_stream.upstream.transport import (
    TransportLimits,
    UpstreamTransport,
    transport_errors,
)
from trio_ai_stream.upstream.transport.transport_errors import cause_of, describe
from trio_ai_stream.upstream.upstream_errors import transport_error
from trio_ai_stream.wire.problems import Fault

AUTHORITY = trustme.CA()
TRUSTING = ssl.create_default_context()
AUTHORITY.configure_trust(TRUSTING)
YESTERDAY = datetime.datetime.now(tz=datetime.UTC) - datetime.timedelta(days=1)


async def failure(
    url: str, transport: UpstreamTransport, connect_s: float = 5
) -> httpx.HTTPError:
    """Ask, and return why there is no answer."""
    timeout = {"connect": connect_s}
    request = httpx.Request("POST", url, content=b"x", extensions={"timeout": timeout})
    with trio.fail_after(20), pytest.raises(httpx.HTTPError) as caught:
        await transport.handle_async_request(request)
    await transport.aclose()
    return caught.value


async def failure_at(
    serve: Callable[[trio.SocketStream], Awaitable[None]], scheme: str
) -> httpx.HTTPError:
    """Ask a server that does this with each connection; return why it fails."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        exc = await failure(f"{scheme}://127.0.0.1:{port}/", UpstreamTransport())
        nursery.cancel_scope.cancel(reason="test over")
    return exc


@contextmanager
def tls_server(certificate: trustme.LeafCert) -> Iterator[int]:
    """Listen with this certificate, in a thread that Trio does not wait for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(10)
                try:
                    context.wrap_socket(accepted, server_side=True).close()
                except OSError:
                    return

        trio.lowlevel.start_thread_soon(answer, lambda _: None)
        yield listener.getsockname()[1]


CERTIFICATES = [
    (
        AUTHORITY.issue_cert("localhost", not_after=YESTERDAY),
        TRUSTING,
        transport_errors.EXPIRED,
    ),
    (AUTHORITY.issue_cert("example.org"), TRUSTING, transport_errors.WRONG_NAME),
    (AUTHORITY.issue_cert("localhost"), None, transport_errors.UNTRUSTED),
]


@pytest.mark.parametrize(
    ("certificate", "context", "cause"), CERTIFICATES, ids=lambda c: type(c).__name__
)
async def test_a_bad_certificate_is_named_and_not_retried(
    certificate: trustme.LeafCert,
    context: ssl.SSLContext | None,
    cause: transport_errors.Cause,
) -> None:
    """Expired, for another name, from nobody we trust: three causes, none heals."""
    with tls_server(certificate) as port:
        exc = await failure(
            f"https://localhost:{port}/", UpstreamTransport(ssl_context=context)
        )
    assert cause_of(exc) is cause
    assert isinstance(exc, httpx.ConnectError)
    ending = transport_error(exc)
    assert ending.problem is not None
    assert not ending.problem.resend
    assert not ending.problem.retryable
    assert cause.word in ending.detail
    assert "certificate" not in ending.problem.message


async def answer_plainly(stream: trio.SocketStream) -> None:
    """Be an HTTP server."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await stream.aclose()


async def test_plain_http_where_tls_was_meant() -> None:
    """The port of another server, or http:// and https:// mixed up."""
    exc = await failure_at(answer_plainly, "https")
    assert cause_of(exc) is transport_errors.PLAINTEXT


async def test_a_server_that_goes_in_the_handshake() -> None:
    """It accepts, reads our hello and closes: its TLS is broken, or a proxy's is."""

    async def go(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    exc = await failure_at(go, "https")
    assert cause_of(exc) is transport_errors.TLS
    assert "the server has closed" in describe(exc)


async def test_tls_where_plain_http_was_meant() -> None:
    """A TLS server answers plain HTTP with an alert (RFC 8446, section 6)."""

    async def alert(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x15\x03\x03\x00\x02\x02\x46")
        await stream.aclose()

    exc = await failure_at(alert, "http")
    assert "https://" in describe(exc)


async def test_nobody_listens() -> None:
    """Refused, at each of the host's addresses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    exc = await failure(f"http://localhost:{port}/", UpstreamTransport())
    assert cause_of(exc) is transport_errors.REFUSED
    ending = transport_error(exc)
    assert ending.detail.startswith("refused: ")
    assert ending.problem is not None
    assert ending.problem.resend
    assert str(port) not in ending.problem.message


async def test_no_such_name() -> None:
    """A name that no name server knows (RFC 6761 reserves `invalid`)."""
    exc = await failure("http://no-such-host.invalid/", UpstreamTransport())
    assert cause_of(exc) is transport_errors.NAME


async def test_a_time_out_says_what_took_so_long() -> None:
    """A server that accepts and says nothing to a TLS client: the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        exc = await failure(
            f"https://127.0.0.1:{port}/", UpstreamTransport(), connect_s=0.1
        )
    assert isinstance(exc, httpx.ConnectTimeout)
    assert cause_of(exc) is transport_errors.TIMEOUT
    assert "TLS handshake" in describe(exc)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up what this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        at = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, at)
        resource.setrlimit(resource.RLIMIT_NOFILE, (at + 8, hard))
        while True:
            try:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_our_own_descriptors_are_told_as_ours(host: str) -> None:
    """It is the server's fault, not upstream's, and does not open the circuit."""
    transport = UpstreamTransport(limits=TransportLimits(circuit_failures=1))
    with no_descriptors():
        exc = await failure(f"http://{host}:9/", transport)
        assert cause_of(exc) is transport_errors.RESOURCES
    problem = transport_error(exc).problem
    assert problem is not None
    assert (problem.fault, problem.status) == (Fault.SERVER, 503)
    assert not problem.resend
    assert transport.circuit == "closed"
