"""The phases of a stream in which a cancel can land, and how to bring a stream there.

A scene is a script of the simulator, by model name, and the phase that the simulator
has to report before the act. After ``HOLD_S`` a held answer goes on, so that a server
which notices only at its next write is seen to notice then, and not never.
"""

from __future__ import annotations

from dataclasses import dataclass

HOLD_S = 2.0
PACE_MS = 10  # from one token to the next
MARK = "size="  # what bears the tag of a trial in the model's name
TOKENS_BEFORE = 3  # read by the client before it acts in mid-stream


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How to bring a stream into one phase."""

    name: str
    script: str
    upstream_phase: str
    tokens: int = 0

    def model(self, tag: int) -> str:
        """Return the model name.

        ``size``, idle in these scripts, carries the tag; ``stamp`` makes the content
        digits, because the plausible text holds U+2028, at which httpx splits lines.
        """
        return f"simulator/endless?stamp=1&{self.script}&{MARK}{tag}"


def held(key: str, hold_s: float) -> str:
    """Return a script that waits at ``key`` and then streams without end."""
    return f"{key}={hold_s * 1000:.0f}&delay_ms={PACE_MS}"


HEADERS = Scene(
    name="headers",
    script=held("headers_ms", HOLD_S),
    upstream_phase="awaiting_headers",
)
FIRST_TOKEN = Scene(
    name="first_token",
    script=held("first_token_ms", HOLD_S),
    upstream_phase="awaiting_first_token",
)
STREAM = Scene(
    name="stream",
    script=f"delay_ms={PACE_MS}",
    upstream_phase="streaming",
    tokens=TOKENS_BEFORE,
)
# For many servers at a time, of which nothing is timed below a tenth of a second.
STEADY = Scene(
    name="stream",
    script="delay_ms=100",
    upstream_phase="streaming",
    tokens=TOKENS_BEFORE,
)
SILENCE = Scene(
    name="silence",
    script=f"endless=0&chunks=3&end=silence&at=3&delay_ms={PACE_MS}",
    upstream_phase="streaming",
    tokens=TOKENS_BEFORE,
)
FLOOD = Scene(
    name="flood",
    script="delay_ms=0&burst=1",  # equal stamps in a row look like a looping model
    upstream_phase="streaming",
    tokens=TOKENS_BEFORE,
)

SCENES = {scene.name: scene for scene in (HEADERS, FIRST_TOKEN, STREAM, SILENCE, FLOOD)}
