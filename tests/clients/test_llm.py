"""Simon Willison's `llm`, as its documentation says to set up a server like this."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import KEY

MODELS = """
- model_id: fast
  model_name: simulator/fast
  api_base: {base_url}
  api_key_name: ours
  supports_tools: true
- model_id: missing
  model_name: simulator/not-found
  api_base: {base_url}
  api_key_name: ours
"""


@pytest.fixture
def folder(tmp_path: Path, base_url: str) -> Path:
    """`llm`'s own folder, with `extra-openai-models.yaml`."""
    text = MODELS.format(base_url=base_url)
    (tmp_path / "extra-openai-models.yaml").write_text(text)
    (tmp_path / "keys.json").write_text(f'{{"ours": "{KEY}"}}')
    return tmp_path


def llm(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "llm", *words],
        env={**os.environ, "LLM_USER_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_an_answer_is_streamed(folder: Path) -> None:
    """The command prints the whole answer."""
    done = llm(folder, "prompt", "-m", "fast", "hello")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100


def test_a_tool_is_called(folder: Path) -> None:
    """`llm` runs its function when upstream asks for it, and sends the result back."""
    function = "def weather(city: str) -> str:\n    return f'sunny in {city}'\n"
    words = (
        "prompt",
        "-m",
        "fast",
        "--no-stream",
        "--functions",
        function,
        "--td",
        "hello",
    )
    done = llm(folder, *words)
    assert done.returncode == 0, done.stderr
    assert "sunny in sample" in done.stderr
    assert len(done.stdout) > 100


def test_a_refusal_is_told(folder: Path) -> None:
    """What upstream refuses ends the command with what was wrong."""
    done = llm(folder, "prompt", "-m", "missing", "hello")
    assert done.returncode == 1
    assert "upstream has no such model" in done.stderr
