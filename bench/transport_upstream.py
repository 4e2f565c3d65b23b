"""The upstream that `bench.transport` measures against, in a process of its own.

Plain sockets and threads, no parser: it must never be what limits the client. In step
mode it sends an event only after the client has counted the one before, so that each
event travels in its own segment however slow the client is.
"""

from __future__ import annotations

import mmap
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path

import trustme

EVENT = (
    b'data: {"id":"gen-1700000000-abcdefghijklmnopqrst","provider":"Bench","model":'
    b'"bench/model-large","object":"chat.completion.chunk","created":1700000000,'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":" token"},'
    b'"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PER_SEGMENT = 1000
_POLL_S = 20e-6


class Counter:
    """A number in a file mapped by both processes: how many events were consumed."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    def set(self, value: int) -> None:
        """Store the number."""
        struct.pack_into("q", self._memory, 0, value)

    def get(self) -> int:
        """Load the number."""
        (value,) = struct.unpack_from("q", self._memory, 0)
        return int(value)


def _serve(connection: socket.socket, counter: Counter) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := _read_request(connection):
            name, _, number = request.strip(b"/").partition(b"/")
            if name == b"small":
                connection.sendall(SMALL)
                continue
            connection.sendall(HEAD)
            if name == b"step":
                _step(connection, int(number), counter)
            else:
                block = CHUNK * PER_SEGMENT
                for _ in range(int(number) // PER_SEGMENT):
                    connection.sendall(block)
            connection.sendall(b"0\r\n\r\n")


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return b""
        data += received
    return data.split(b" ", 2)[1]


def _step(connection: socket.socket, events: int, counter: Counter) -> None:
    for number in range(events):
        while counter.get() < number:
            time.sleep(_POLL_S)
        connection.sendall(CHUNK)


def _accept(
    listener: socket.socket, context: ssl.SSLContext | None, counter: Counter
) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(
            target=_secure_and_serve, args=(connection, context, counter), daemon=True
        ).start()


def _secure_and_serve(
    connection: socket.socket, context: ssl.SSLContext | None, counter: Counter
) -> None:
    try:
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        _serve(connection, counter)
    except OSError:
        connection.close()  # the client went away, which is how each round ends


def main(folder: Path) -> None:
    """Serve plain and TLS; write the CA's certificate, print the two ports."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    counter = Counter(folder / "counter")
    for secured in (None, context):
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        print(listener.getsockname()[1], flush=True)
        threading.Thread(
            target=_accept, args=(listener, secured, counter), daemon=True
        ).start()
    sys.stdin.read()  # until the parent goes away


if __name__ == "__main__":
    main(Path(sys.argv[1]))
