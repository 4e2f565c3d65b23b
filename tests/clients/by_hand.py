"""Coding agents and litellm, as they are, against the server: too heavy for the tests.

`python -m tests.clients.by_hand FOLDER`, where `npm install @anthropic-ai/claude-code
@openai/codex` has been run. Each agent calls a tool, waits for a model that thinks for
two minutes, meets an upstream that has died, and is killed in several phases; all at
the same time. Then `litellm_by_hand.py` runs in an environment that uv makes for it.
Prints one line a check; docs/compatibility.md has the results. Loopback only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.clients.conftest import SimulatorProcess
from tests.support.serving import ServerProcess

TOOLS: Final = {"claude": "Bash", "codex": "exec_command"}
# What is checked: the model's faults, and after how many seconds the agent is killed.
CHECKS: Final = {
    "a tool call": ("tool={tool}", 120.0),
    "120 s before any event": ("opening_ms=120000&comment_every_ms=10000", 330.0),
    "120 s of thinking": ("comments_ms=120000&comment_every_ms=10000", 330.0),
    "a dead upstream": ("end=silence&at=5&delay_ms=10", 330.0),
    "killed before the head": ("headers_ms=forever", 12.0),
    "killed before any event": ("opening_ms=forever", 12.0),
    "killed while thinking": ("reasoning=100000&delay_ms=100", 12.0),
    "killed in mid-answer": ("endless=1&delay_ms=100", 12.0),
}


def claude(folder: Path, url: str, model: str, home: Path) -> subprocess.Popen[str]:
    """Start Claude Code with one question."""
    environ = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_SMALL_FAST_MODEL": "simulator/fast",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
        # Its strictest: nothing for 20 s ends the stream, if it took the setting.
        "CLAUDE_ENABLE_STREAM_WATCHDOG": "1",
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "20000",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "20000",
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
        'env_key = "KEY"\nrequest_max_retries = 0\nstream_max_retries = 0\n'
        "stream_idle_timeout_ms = 20000\n"
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
        start_new_session=True,  # npm's commands have a child that does the work
    )


def check(
    run: Callable[[Path, str, str, Path], subprocess.Popen[str]],
    folder: Path,
    url: str,
    what: str,
) -> str:
    """Let one agent do one thing; return what came of it."""
    name = run.__name__
    keys, seconds = CHECKS[what]
    home = Path(tempfile.mkdtemp())
    began = time.monotonic()
    model = f"simulator/fast?{keys.format(tool=TOOLS[name])}"
    process = run(folder, url, model, home)
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    took_s = time.monotonic() - began
    last = [line for line in said.splitlines() if line.strip()][-1:]
    return (
        f"{name}: {what}: status {process.returncode} after {took_s:.0f} s\n"
        f"    {len(said)} characters, last: {str(last)[:300]}\n"
    )


def version(folder: Path, name: str) -> str:
    """Return what an agent says of itself."""
    command = [str(folder / "node_modules" / ".bin" / name), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Run all, and print what the server noticed of those that were killed."""
    folder = Path(sys.argv[1]).resolve()
    simulator = SimulatorProcess()
    log = Path(tempfile.mkdtemp()) / "log"
    server = ServerProcess(
        log,
        UPSTREAM="openrouter",
        OPENROUTER_API_KEY="upstream-key",
        OPENROUTER_BASE_URL=simulator.url,
        OPENROUTER_MODEL="simulator/fast",
        RATE_LIMIT="1000",
        HEARTBEAT_EVENTS="1",
    )
    try:
        with ThreadPoolExecutor(6) as pool:
            runs = [
                pool.submit(check, agent, folder, server.url, what)
                for what in CHECKS
                for agent in (claude, codex)
            ]
            for name in TOOLS:
                sys.stdout.write(version(folder, name))
            for done in runs:
                sys.stdout.write(done.result())
                sys.stdout.flush()
        for line in log.read_text().splitlines():
            if '"stream_ended"' in line and "simulator/fast?" in line:
                sys.stdout.write(f"noticed: {line[:700]}\n")
        script = str(Path(__file__).with_name("litellm_by_hand.py"))
        command = ["uv", "run", "--isolated", "--no-project", "--with", "litellm"]
        subprocess.run(
            [*command, "python", script, server.url, simulator.url], check=False
        )
    finally:
        server.stop()
        simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
