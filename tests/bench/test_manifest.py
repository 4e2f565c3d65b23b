"""The manifest for GetBusbar/benchmarking: its functions, as its runners call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.processes import upstream
from scripts.docs import ROOT

FOLDER = ROOT / "bench" / "manifest"
# What a runner does: source the file, launch, wait, load, weigh, stop.
RUN = """
set -e
. "$GW_DIR/gateway.sh"
gw_build
gw_launch
for _ in $(seq 300); do
  curl -s -o /dev/null "localhost:$GW_PORT/ready" && break
  sleep 0.1
done
curl -sS "localhost:$GW_PORT$GW_PATH" -H "Authorization: Bearer $GW_AUTH" \
  -H 'Content-Type: application/json' \
  -d '{"model":"bench/3/0","messages":[{"role":"user","content":"hi"}],"stream":true}'
echo "rss $(gw_rss)"
gw_stop
pgrep -f "serve --port $GW_PORT" || echo stopped
"""


def test_the_functions_launch_weigh_and_stop(tmp_path: Path) -> None:
    """A stream passes, the memory is that of all processes, and nothing is left."""
    script = (FOLDER / "gateway.sh").read_text()
    (tmp_path / "gateway.sh").write_text(script.replace("GW_PORT=8117", "GW_PORT=8118"))
    program = Path(sys.executable).parent.parent  # what gw_build would install
    with upstream() as mock:
        # The mock of the bench answers below /api/v1; the other's below /v1.
        base = f"127.0.0.1:{mock.port}/api/v1"
        text = (tmp_path / "gateway.sh").read_text()
        text = text.replace("127.0.0.1:$MOCK_PORT/v1", base)
        (tmp_path / "gateway.sh").write_text(text)
        done = subprocess.run(
            ["bash", "-c", RUN],
            env={
                **os.environ,
                "GW_DIR": str(tmp_path),
                "GW_VENV": str(program),
                "MOCK_PORT": str(mock.port),
                "CORES": f"0-{min(1, (os.cpu_count() or 1) - 1)}",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "data: [DONE]" in done.stdout
    (rss,) = (line for line in done.stdout.splitlines() if line.startswith("rss "))
    assert int(rss.split()[1]) > 60, "all processes together"
    assert "stopped" in done.stdout


def test_the_definition_agrees_with_the_functions() -> None:
    """Both forms of the manifest start the same command."""
    definition = json.loads((FOLDER / "definition.json").read_text())
    script = (FOLDER / "gateway.sh").read_text()
    assert f"GW_PORT={definition['port']}" in script
    assert f"GW_PATH={definition['path']}" in script
    assert f"GW_MODEL={definition['model']}" in script
    for name in definition["launch"]["env"]:
        assert f"{name}=" in script
    assert definition["runtime"]["proc_match"].endswith(str(definition["port"]))
