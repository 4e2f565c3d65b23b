"""Streams in number, by clients that are nothing but a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit


@contextmanager
def crowd(url: str, number: int, model: str = "simulator/no-token") -> Iterator[None]:
    """Hold so many streams, as clients that need nothing but a socket."""
    address = urlsplit(url)
    body = json.dumps({"prompt": "Hm?", "model": model})
    head = f"POST /chat HTTP/1.1\r\nhost: {address.netloc}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(number):
            one = socket.create_connection((address.hostname or "", address.port or 0))
            stack.enter_context(one).sendall(f"{head}{body}".encode())
        yield
