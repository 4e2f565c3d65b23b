"""What a server keeps after the cancels: streams, descriptors, half-dead sockets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import trio

from cancel_lab import procfs
from cancel_lab.matrix.cells import LOGGED, Site
from cancel_lab.matrix.logs import Log
from cancel_lab.matrix.variants import Variant
from cancel_lab.records import RunRecord, Status
from cancel_lab.trial import Arena, sut
from cancel_lab.upstream import get_json

QUIET_WITHIN_S = 5.0
LOOK_S = 0.1
POOLED = 16  # idle upstream connections that a server may keep for its next requests


@dataclass(frozen=True)
class Leaks:
    """A server's open files before anything was done to it."""

    arena: Arena
    site: Site
    tls: bool
    files: dict[str, int]
    variant: Variant = Variant.PLAIN

    @classmethod
    async def baseline(
        cls, arena: Arena, site: Site, *, tls: bool, variant: Variant = Variant.PLAIN
    ) -> Leaks:
        """Note the open files of a server that has just started."""
        await trio.lowlevel.checkpoint()
        files = procfs.open_files(arena.server.pid)
        return cls(arena, site, tls, files, variant)

    async def record(self, log: Log, causes: Iterable[str]) -> RunRecord:
        """Wait until the server is quiet, QUIET_WITHIN_S at most, and compare.

        An error in the log that is due to one of the ``causes`` is no violation.
        Over TLS the number of live streams is not asked for: the log has told it.
        """
        leaks: dict[str, int] = {}
        with trio.move_on_after(QUIET_WITHIN_S):
            while True:
                leaks = await self._now()
                if not self._violations(leaks):
                    break
                await trio.sleep(LOOK_S)
        log.records("")
        violations = self._violations(leaks)
        due = tuple(LOGGED[cause] for cause in causes if cause in LOGGED)
        errors = [message for message in log.errors if not message.startswith(due)]
        violations += [f"I10 logged: {message}" for message in errors[:5]]
        transport = "tls" if self.tls else "cleartext"
        return RunRecord(
            run_id=f"leaks-{self.site}-{transport}-{self.variant}".rstrip("-"),
            tier="matrix",
            experiment="leaks",
            sut=sut(self.arena.adapter),
            cause="all of the site",
            phase=self.site.value,
            transport=transport,
            variant=self.variant.value,
            status=Status.VIOLATED if violations else Status.PASS,
            violations=violations,
            leaks=leaks,
        )

    async def _now(self) -> dict[str, int]:
        files = procfs.open_files(self.arena.server.pid)
        leaks = {name: files[name] - self.files[name] for name in files}
        if not self.tls:
            health = await get_json(self.arena.server.port, "/health")
            leaks["live_streams"] = int(health["live_streams"])
        else:
            await trio.lowlevel.checkpoint()
        return leaks

    @staticmethod
    def _violations(leaks: dict[str, int]) -> list[str]:
        allowed = {"fds": POOLED, "ESTABLISHED": POOLED}
        return [
            f"I9 {name} +{count}"
            for name, count in leaks.items()
            if count > allowed.get(name, 0)
        ]
