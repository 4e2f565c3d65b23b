"""The command line: what it hands over, and what it says is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_dev_cert_without_its_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where trustme is not installed, `dev-cert` ends with 2 and names the extra."""
    monkeypatch.delitem(sys.modules, "trio_ai_stream.server.certificate", raising=False)
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert main(["dev-cert"]) == 2
    assert "trio-ai-stream[dev-cert]" in capsys.readouterr().err


def test_the_terminal_client_starts_without_what_only_a_server_needs() -> None:
    """Its imports are what a person waits for before the first word."""
    words = ["-X", "importtime", "-m", "trio_ai_stream", "chat", "--help"]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "trio_ai_stream.chat_client.chat_exchange" in loaded
    assert not loaded & {"quart", "hypercorn", "trio_ai_stream.settings"}
    assert "httpx" in loaded
    assert not loaded & {"rich", "click"}


def test_check_config_lists_names_that_are_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting of another version is found before the upgrade, not after it."""
    (tmp_path / ".env").write_text("COMPLETIONS_HEARTBEAT=events\nRATE_LIMIT=3\n")
    monkeypatch.chdir(tmp_path)
    assert main(["check-config"]) == 0
    said = "# in .env, and no settings of this server: COMPLETIONS_HEARTBEAT"
    assert capsys.readouterr().out.splitlines()[-1] == said
