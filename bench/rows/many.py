"""As many live streams as descriptors allow: does one more cost more among them?"""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import h2.config
import h2.connection
import h2.events

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import Process, gateway, upstream
from bench.rows.idle import IDLE_MODEL
from bench.rows.row import Rounds

# Descriptors that a gateway needs beside the two of each stream.
SPARE = 100
# Streams that begin at once.
BACKLOG = 500
# Streams on one connection; the gateway allows 128.
STREAMS = 100


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


def portions(whole: int, size: int) -> list[int]:
    """Return `whole` in parts of `size`, and what is left."""
    return [min(size, whole - start) for start in range(0, whole, size)]


@dataclass(frozen=True)
class Many(Rounds):
    """`many` live streams against `few`; `probes` more are run among them.

    A stream over HTTP/1.1 is two descriptors; those for which the hard limit leaves
    none share connections over HTTP/2.
    """

    rounds: int = 1
    few: int = 100
    many: int = 10_000
    probes: int = 300
    events: int = 10

    def measure(self) -> list[Figure]:
        """Return what one more stream costs at both levels; only of ours."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        spare = hard - SPARE - 2 * self.probes - self.many - self.many // STREAMS
        alone = max(self.few, min(self.many, spare))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        most = self.many
        held = Figure(f"{most} live streams: held", "", "all", digits=0)
        shared = Figure(f"{most} live streams: of them over HTTP/2", "", digits=0)
        cost = Figure(f"one more stream among {self.few}: CPU", "us", digits=0)
        at_most = "at most 1.5x the line above"
        more = Figure(f"one more stream among {most}: CPU", "us", at_most, digits=0)
        name = f"{most} live streams: RSS per stream, before its heartbeats"
        memory = Figure(name, "kB", digits=1)
        for _ in range(self.rounds):
            with (
                upstream() as source,
                gateway("ours", source) as (process, target),
                Load(target) as load,
                ExitStack() as stack,
            ):
                load.raise_to(self.few, IDLE_MODEL, at_once=BACKLOG)
                before = process.resident
                self.probe(target, process)
                cost.add("ours", 1e6 * self.probe(target, process))
                load.raise_to(alone, IDLE_MODEL, at_once=BACKLOG)
                rest = [
                    stack.enter_context(Multiplexed(target, count, IDLE_MODEL))
                    for count in portions(most - alone, STREAMS)
                ]
                for streams in rest:
                    streams.read_to_begin(at_most_s=120)
                held.add("ours", len(load.open) + sum(s.count for s in rest))
                shared.add("ours", sum(streams.count for streams in rest))
                memory.add(
                    "ours", (process.resident - before) / 1000 / (most - self.few)
                )
                more.add("ours", 1e6 * self.probe(target, process))
        return [held, shared, memory, cost, more]

    def probe(self, target: Target, process: Process) -> float:
        """Return the CPU seconds that one short stream takes, of several at once."""
        with Load(target) as load:
            before = process.cpu_s
            for _ in range(self.probes // 10):
                load.begin(10, f"bench/{self.events}/0")
                load.read_to_end(at_most_s=60)
            return (process.cpu_s - before) / self.probes
