"""The server's interventions and the metric that exports them name the same things."""

from __future__ import annotations

from typing import get_args

from trio_ai_stream.server.connection import Intervention
from trio_ai_stream.telemetry.families import INTERVENTIONS, OTHER


def test_no_intervention_is_counted_as_other() -> None:
    """Each kind that the server counts is a label value of its own."""
    assert {*get_args(Intervention), OTHER} == set(INTERVENTIONS)
