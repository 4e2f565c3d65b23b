"""schemathesis against the OpenAPI file: the server keeps what the file promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.clients.conftest import KEY
from tests.support.serving import ServerProcess

# All but `positive_data_acceptance`: that a prompt has some text, and how long all are
# together, are rules which a schema has no words for.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ensure_resource_availability",
]


def test_the_server_keeps_its_promises(server: ServerProcess, tmp_path: Path) -> None:
    """No 500, no answer that the file does not describe, nothing without a key."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    command += [f"{server.url}/openapi.json", "--checks", ",".join(CHECKS)]
    command += ["--header", f"Authorization: Bearer {KEY}"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "2"]
    command += ["--exclude-path", "/streams/live"]  # it has no end to wait for
    command += ["--suppress-health-check", "all"]  # they are about slow machines
    command += ["--seed", "1", "--generation-database", "none", "--no-color"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
