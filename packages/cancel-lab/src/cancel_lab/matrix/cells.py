"""The cells of the matrix as data: what is done, and what has to come of it.

The expectations are written from DESIGN's table of endings, not imported from the code
under test. Cells that cannot exist are in the table too, each with its reason.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from cancel_lab.clients.acts import Act, Transport, impossible
from cancel_lab.matrix.variants import BODIES, FRONTS, Variant
from cancel_lab.scenes import (
    FIRST_TOKEN,
    FLOOD,
    HEADERS,
    SILENCE,
    STREAM,
    Scene,
)


class Site(enum.StrEnum):
    """Which configuration of the server a cell needs."""

    PATIENT = "patient"  # budgets longer than any run
    HASTY = "hasty"  # every budget of upstream a fraction of a second
    STALLING = "stalling"  # the budget of a write a fraction of a second
    UNCONNECTED = "unconnected"  # upstream takes no connection
    HASTY_UNCONNECTED = "hasty-unconnected"
    DRAINING = "draining"  # a short drain; ends with each run


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell; ``ending`` is the client's terminal event, ``None`` if it is gone."""

    cause: str
    phase: str
    transport: Transport
    outcome: str
    ending: str | None = None
    site: Site = Site.PATIENT
    scene: Scene | None = None
    variant: Variant = Variant.PLAIN
    impossible: str | None = None

    @property
    def upstream_closes(self) -> bool:
        """Whether the server has an upstream connection that it has to close."""
        return not self.cause.startswith("upstream_") and self.phase != "connecting"


CONNECTING = Scene(name="connecting", script="", upstream_phase="")
WRITING = Scene(
    name="writing", script=FLOOD.script, upstream_phase="streaming", tokens=1
)
CLIENT_SCENES = (CONNECTING, HEADERS, FIRST_TOKEN, STREAM, WRITING)
CLEARTEXT = (Transport.H1, Transport.H2C)
GONE = "client_disconnected"


def _client_cells() -> Iterator[Cell]:
    for act in Act:
        for scene in CLIENT_SCENES:
            for transport in Transport:
                yield _client_cell(act, scene, transport)


def _client_cell(act: Act, scene: Scene, transport: Transport) -> Cell:
    reason = impossible(act, transport)
    stalls = act is Act.STOP_READING
    if stalls and scene is not FLOOD and scene is not WRITING:
        reason = "nothing is written that the client could leave unread"
    if scene is WRITING and act is Act.FIN:
        reason = "closing with unread bytes sends RST, not FIN"
    if scene is WRITING and transport is Transport.H1_PIPELINED:
        reason = "the same as h1: the reader is parked either way"
    site = Site.PATIENT
    if scene is CONNECTING:
        site = Site.UNCONNECTED
    elif stalls:
        site = Site.STALLING
    return Cell(
        cause=act.value,
        phase=scene.name,
        transport=transport,
        outcome="client_stalled" if stalls else GONE,
        site=site,
        scene=scene,
        impossible=reason,
    )


def _timeout_cells() -> Iterator[Cell]:
    budgets = (
        ("connect_timeout", CONNECTING, "upstream_unreachable"),
        ("first_token_timeout", HEADERS, "first_token_timeout"),
        ("first_token_timeout", FIRST_TOKEN, "first_token_timeout"),
        ("stream_idle_timeout", SILENCE, "stream_idle_timeout"),
        ("stream_deadline", STREAM, "deadline_exceeded"),
    )
    for cause, scene, outcome in budgets:
        site = Site.HASTY_UNCONNECTED if scene is CONNECTING else Site.HASTY
        for transport in CLEARTEXT:
            yield Cell(
                cause=cause,
                phase=scene.name,
                transport=transport,
                outcome=outcome,
                ending=f"error:{outcome}",
                site=site,
                scene=scene,
            )


FAULTS = {
    "upstream_refuses": ("refuse=drop", "upstream_failed", "headers"),
    "upstream_401": ("status=401", "upstream_rejected", "headers"),
    "upstream_429": ("status=429", "upstream_rejected", "headers"),
    "upstream_500": ("status=500", "upstream_rejected", "headers"),
    "upstream_closes": ("end=drop&at=3&delay_ms=5", "upstream_failed", "stream"),
    "upstream_resets": ("end=reset&at=3&delay_ms=5", "upstream_failed", "stream"),
    "upstream_truncates": ("end=truncate&at=3&delay_ms=5", "upstream_failed", "stream"),
    "upstream_error_event": ("end=error&at=3&delay_ms=5", "upstream_failed", "stream"),
    "upstream_bad_json": (
        "corrupt=json&at=3&delay_ms=5&chunks=6",
        "upstream_failed",
        "stream",
    ),
    "upstream_finishes": ("chunks=5&delay_ms=5", "completed", "stream"),
}  # cause: script, outcome, phase


# What an operator has to be told as an error, by its cause.
LOGGED = {"upstream_401": "upstream rejected OPENROUTER_API_KEY"}


def _upstream_cells() -> Iterator[Cell]:
    for cause, (script, outcome, phase) in FAULTS.items():
        scene = Scene(name=phase, script=f"endless=0&{script}", upstream_phase="")
        for transport in CLEARTEXT:
            yield Cell(
                cause=cause,
                phase=phase,
                transport=transport,
                outcome=outcome,
                ending="done" if outcome == "completed" else "error:",
                scene=scene,
            )


def _server_cells() -> Iterator[Cell]:
    for scene in (HEADERS, FIRST_TOKEN, STREAM):
        for transport in CLEARTEXT:
            yield Cell(
                cause="cancel_by_id",
                phase=scene.name,
                transport=transport,
                outcome="cancelled",
                ending="error:cancelled",
                scene=scene,
            )
            yield Cell(
                cause="sigterm",
                phase=scene.name,
                transport=transport,
                outcome="shutdown",
                ending="error:shutting_down",
                site=Site.DRAINING,
                scene=scene,
            )


ABANDONED = "grace_spent"  # after the client's FIN
CANCELLED_DETACHED = "cancel_by_id_detached"


def _variant_cells() -> Iterator[Cell]:
    for variant in Variant:
        if variant in (Variant.PLAIN, Variant.RESUMABLE):
            continue
        for scene in (HEADERS, FIRST_TOKEN, STREAM):
            yield Cell(
                cause=Act.FIN.value, phase=scene.name, transport=Transport.H1,
                outcome=GONE, scene=scene, variant=variant,
            )  # fmt: skip
        yield Cell(
            cause=Act.RST.value, phase=STREAM.name, transport=Transport.H1,
            outcome=GONE, scene=STREAM, variant=variant,
        )  # fmt: skip
        if variant not in FRONTS:
            yield Cell(
                cause="cancel_by_id", phase=STREAM.name, transport=Transport.H1,
                outcome="cancelled", scene=STREAM, variant=variant,
                ending="error" if variant in BODIES else "error:cancelled",
            )  # fmt: skip
    for cause, outcome in (
        (ABANDONED, "abandoned"),
        (CANCELLED_DETACHED, "cancelled"),
    ):
        yield Cell(
            cause=cause, phase=STREAM.name, transport=Transport.H1, outcome=outcome,
            scene=STREAM, variant=Variant.RESUMABLE,
        )  # fmt: skip


ELSEWHERE = {
    "permit_wait": "the server answers 503 at once; nobody waits for a permit",
    "pool_wait": "one connection a live stream; nobody waits for a pool",
    "terminal_write": "a few microseconds wide: reached by the sweep, not from outside",
    "cleanup": "as short: reached by the sweep at depth 2",
}


def all_cells() -> list[Cell]:
    """Return every cell, the impossible ones included."""
    unreachable = [
        Cell(
            cause="any",
            phase=phase,
            transport=Transport.H1,
            outcome="",
            impossible=reason,
        )
        for phase, reason in ELSEWHERE.items()
    ]
    return [
        *_client_cells(),
        *_timeout_cells(),
        *_upstream_cells(),
        *_server_cells(),
        *_variant_cells(),
        *unreachable,
    ]
