"""The command line hands the instrument's command over to its own package."""

from __future__ import annotations

import sys

import pytest

from trio_ai_stream.cli import main


def test_lab_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where cancel-lab is not installed, `lab` ends with 2 and names the remedy."""
    monkeypatch.setitem(sys.modules, "cancel_lab.__main__", None)
    assert main(["lab", "probe"]) == 2
    assert "pip install ./packages/cancel-lab" in capsys.readouterr().err


def test_lab_hands_its_words_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is installed, the rest of the line is its own."""
    assert main(["lab", "probe"]) == 2
    assert "expected --adapter NAME" in capsys.readouterr().err
