"""A worker starts with the settings of its supervisor, if it knows the same ones."""

from __future__ import annotations

import os

import pytest

from trio_ai_stream.settings import SETTINGS, Handover, first_settings, load_settings
from trio_ai_stream.settings import handover as module


@pytest.mark.parametrize("same", [True, False])
def test_settings_are_taken_over_within_one_release(
    same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another one would be mixed up: the worker reads its own."""
    subject = Handover(load_settings({"PORT": "8001"}, None))
    monkeypatch.setenv("PORT", "8002")
    for name, value in subject.environ.items():
        monkeypatch.setenv(name, value)
    if not same:
        monkeypatch.setattr(module, "SETTINGS", {**SETTINGS, "NEW": None})
    _, port = first_settings().PORT
    assert port == (8001 if same else 8002)
    os.close(subject.descriptor)
