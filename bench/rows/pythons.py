"""What the interpreter is worth: the same server on several Pythons, in turns."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass

from bench.figures import Figure
from bench.load import Load, Target
from bench.processes import Process, gateway, upstream
from bench.rows.first import First
from bench.rows.idle import IDLE_MODEL
from bench.rows.relay import Relay
from bench.rows.row import RIVALS, Rounds, in_turns

_VERSION = "import sys; print(sys.version.split()[0])"


@dataclass(frozen=True)
class Pythons(Rounds):
    """`pythons` (interpreters, with commas between them) serve `requests` in turns.

    Each must have the project and its `bench` group installed. Beside our server stands
    the relay on aiohttp, on the same interpreter.
    """

    pythons: str = sys.executable
    requests: int = 100
    idle: int = 500

    def measure(self) -> list[Figure]:
        """Return first content, CPU and memory for each interpreter."""
        figures = []
        with contextlib.ExitStack() as running:
            source = running.enter_context(upstream())
            measured = []
            for python in self.pythons.split(","):
                named = f"Python {_version(python)}"
                one = _Interpreter(named)
                memory = Figure(f"{named}: RSS per idle stream", "kB", digits=1)
                memory.add("ours", self._held(source, python))
                for who in RIVALS:
                    served = gateway(who, source, python=python)
                    process, target = running.enter_context(served)
                    First.run(target, 20)
                    measured.append((one, who, process, target))
                figures += [one.added, one.request, one.event, memory]
            for one, who, process, target in in_turns(self.rounds, measured):
                one.measure(who, process, target, source, self.requests)
        return figures

    def _held(self, source: Target, python: str) -> float:
        with (
            gateway("ours", source, python=python) as (process, target),
            Load(target) as load,
        ):
            load.read_to_begin(load.begin(50, IDLE_MODEL), at_most_s=30)
            before = process.resident
            load.read_to_begin(load.begin(self.idle, IDLE_MODEL), at_most_s=60)
            load.read_for(0.5)
            return (process.resident - before) / 1000 / self.idle


class _Interpreter:
    def __init__(self, named: str) -> None:
        self.added = Figure(f"{named}: first content, added", "ms")
        self.request = Figure(f"{named}: CPU per request", "us", digits=0)
        self.event = Figure(f"{named}: CPU per event, 32 streams", "us")

    def measure(
        self, who: str, process: Process, target: Target, source: Target, requests: int
    ) -> None:
        before = process.cpu_s
        _, first_s = First.run(target, requests)
        self.request.add(who, (process.cpu_s - before) / requests * 1e6)
        _, direct_s = First.run(source, requests)
        self.added.add(who, 1000 * (first_s - direct_s))
        cost, _ = Relay().run(target, process, events=1000)
        self.event.add(who, cost * 1e6)


def _version(python: str) -> str:
    command = [python, "-c", _VERSION]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return said.strip()
