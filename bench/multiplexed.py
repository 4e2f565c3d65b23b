"""Streams that share a connection: HTTP/2, for more of them than descriptors allow.

A stream over HTTP/1.1 costs the gateway two descriptors, one over HTTP/2 costs it one.
"""

from __future__ import annotations

import socket
import time
from typing import Self

import h2.config
import h2.connection
import h2.events

from bench.load import Target

STREAMS = 100
"""Streams on one connection; the gateway allows 128."""


class Multiplexed:
    """Up to `STREAMS` streams on one connection, each one begun and then left alone."""

    def __init__(self, target: Target, count: int, model: str) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._connection = h2.connection.H2Connection(config)
        self._mark = target.mark
        self._begun: set[int] = set()
        self._sock = socket.create_connection(("127.0.0.1", target.port))
        self._connection.initiate_connection()
        _, _, body = target.request(model).partition(b"\r\n\r\n")
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "127.0.0.1"),
            (":path", target.path),
            ("content-type", "application/json"),
        ]
        for _ in range(count):
            stream_id = self._connection.get_next_available_stream_id()
            self._connection.send_headers(stream_id, fields)
            self._connection.send_data(stream_id, body, end_stream=True)
        self._sock.sendall(self._connection.data_to_send())
        self.count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def read_to_begin(self, *, at_most_s: float) -> None:
        """Read until each stream has had content.

        :raises TimeoutError: when that takes longer.
        """
        ends_at = time.monotonic() + at_most_s
        while len(self._begun) < self.count:
            self._sock.settimeout(max(0.001, ends_at - time.monotonic()))
            data = self._sock.recv(256 * 1024)
            if not data:
                raise ConnectionError("the gateway closed the connection")
            for event in self._connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self._note(event)
            self._sock.sendall(self._connection.data_to_send())

    def _note(self, event: h2.events.DataReceived) -> None:
        assert event.stream_id is not None
        if self._mark in (event.data or b""):
            self._begun.add(event.stream_id)
        self._connection.acknowledge_received_data(
            event.flow_controlled_length or 0, event.stream_id
        )
