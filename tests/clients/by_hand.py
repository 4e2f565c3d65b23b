"""Coding agents, as they are, against the server: too heavy for the test run.

`python -m tests.clients.by_hand FOLDER`, where `npm install @anthropic-ai/claude-code
@openai/codex` has been run, and for `litellm` a virtual environment `venv` in it. Each
answers with a tool call, waits out a model that thinks, and is killed in mid-stream.
Prints one line a check; docs/api.md has the results. Loopback only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.clients.conftest import SimulatorProcess
from tests.support.serving import ServerProcess

TOOLS: Final = {"claude": "Bash", "codex": "exec_command"}
LITELLM: Final = """
import sys, litellm
kind = dict(api_base=sys.argv[1] + "/v1", api_key="x", input="hello")
whole = litellm.responses(model="openai/simulator/fast", **kind)
events = list(litellm.responses(model="openai/simulator/fast", stream=True, **kind))
assert str(events[-1].type).lower().endswith("completed"), events[-1].type
text = "".join(e.delta for e in events if "output_text.delta" in str(e.type.value))
assert text == whole.output_text and len(text) > 50
print("same text", len(text))
"""


def claude(folder: Path, url: str, model: str, home: Path) -> subprocess.Popen[str]:
    """Start Claude Code with one question."""
    environ = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_SMALL_FAST_MODEL": "simulator/fast",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    words = ["claude", "-p", "say hello", "--output-format", "stream-json", "--verbose"]
    return start(folder, [*words, "--allowedTools", "Bash"], environ, home)


def codex(folder: Path, url: str, model: str, home: Path) -> subprocess.Popen[str]:
    """Start Codex with one question."""
    settings = home / ".codex" / "config.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(
        f'model = "{model}"\nmodel_provider = "here"\n[model_providers.here]\n'
        f'name = "here"\nbase_url = "{url}/v1"\nwire_api = "responses"\n'
        'env_key = "KEY"\n'
    )
    words = ["codex", "exec", "--skip-git-repo-check", "--json", "say hello"]
    return start(folder, words, {"KEY": "any"}, home)


def start(
    folder: Path, words: list[str], environ: dict[str, str], home: Path
) -> subprocess.Popen[str]:
    """Start a command of the folder's packages with nothing of this environment."""
    command = [str(folder / "node_modules" / ".bin" / words[0]), *words[1:]]
    known = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.Popen(
        command,
        cwd=home,
        env={**known, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check(
    name: str,
    run: Callable[[Path, str, str, Path], subprocess.Popen[str]],
    folder: Path,
    server: ServerProcess,
) -> None:
    """Let one agent answer, wait, and be killed; print what came of it."""
    home = Path(tempfile.mkdtemp())
    version = subprocess.run(
        [folder / "node_modules" / ".bin" / name, "--version"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    for what, keys, seconds in (
        ("a tool call", f"tool={TOOLS[name]}", 90.0),
        ("40 s of thinking", "comments_ms=40000&comment_every_ms=5000", 300.0),
        ("killed in mid-stream", "endless=1&delay_ms=100", 12.0),
    ):
        process = run(folder, server.url, f"simulator/fast?{keys}", home)
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate()
        last = [line for line in said.splitlines() if line.strip()][-1:]
        sys.stdout.write(f"{name} {version}: {what}: {process.returncode}\n")
        sys.stdout.write(f"    {len(said)} characters, last: {str(last)[:200]}\n")


def main() -> int:
    """Run what the folder has."""
    folder = Path(sys.argv[1]).resolve()
    simulator = SimulatorProcess()
    log = Path(tempfile.mkdtemp()) / "log"
    server = ServerProcess(
        log,
        UPSTREAM="openrouter",
        OPENROUTER_API_KEY="upstream-key",
        OPENROUTER_BASE_URL=simulator.url,
        OPENROUTER_MODEL="simulator/fast",
        RATE_LIMIT="100",
    )
    try:
        python = folder / "venv" / "bin" / "python"
        if python.exists():
            local = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            words = [str(python), "-c", LITELLM, server.url]
            subprocess.run(words, env=local, check=False)
        for name, run in (("claude", claude), ("codex", codex)):
            if (folder / "node_modules" / ".bin" / name).exists():
                check(name, run, folder, server)
        for line in log.read_text().splitlines():
            if '"stream_ended"' in line and "client_disconnected" in line:
                sys.stdout.write(f"noticed: {line[:400]}\n")
    finally:
        server.stop()
        simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
