"""LiteLLM's proxy with one wildcard model that goes to ``UPSTREAM_URL``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Write the proxy's configuration and become the proxy.

    JSON is YAML, so the configuration needs no YAML writer.
    """
    route = {
        "model": "openai/*",
        "api_base": os.environ["UPSTREAM_URL"],
        "api_key": "lab-key",
    }
    models = [{"model_name": "*", "litellm_params": route}]
    folder = Path(tempfile.mkdtemp(prefix="lab-litellm-"))
    config = folder / "config.yaml"
    config.write_text(json.dumps({"model_list": models}), encoding="utf-8")
    program = "from litellm.proxy.proxy_cli import run_server; run_server()"
    arguments = [sys.executable, "-c", program, "--config", str(config), *sys.argv[1:]]
    os.execv(sys.executable, arguments)  # noqa: S606 - no shell, a fixed program


if __name__ == "__main__":
    main()
