"""The container's and Kubernetes' files, as far as no daemon is needed to hold them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from cancel_lab.process import free_port
from tests.deploy.proxies import DEPLOY
from tests.support.serving import ServerProcess
from trio_ai_stream.server.certificate import write

ROOT = DEPLOY.parent.parent
CONTAINER = (DEPLOY / "Containerfile").read_text()


def versions() -> dict[str, Version]:
    """Return the locked versions by name."""
    lines = (DEPLOY / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: Version(version) for name, version in pairs}


def test_the_lock_holds_all_that_is_installed_and_nothing_that_may_not_be() -> None:
    """Each dependency has a version there, within the project's own bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["redis"], *extras["otel"]]
    locked = versions()
    assert wanted
    for requirement in map(Requirement, wanted):
        version = locked.get(requirement.name)
        hint = f"{requirement}: run the command at the top of constraints.txt"
        assert version is not None, hint
        assert version in requirement.specifier, hint
    assert "-c constraints.txt '.[redis,otel]'" in CONTAINER
    assert "docs/deploy/constraints.txt" in CONTAINER


def test_the_container_runs_without_root_and_gets_its_signals() -> None:
    """A user by number, the exec form, the management port on loopback."""
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", CONTAINER, re.MULTILINE)
    assert 'ENTRYPOINT ["trio-ai-stream"]' in CONTAINER
    assert "# podman build --format docker " in CONTAINER  # OCI has no health checks
    assert re.search(r"^ +METRICS_PORT=\d+ ", CONTAINER, re.MULTILINE)


def health_check(port: int) -> int:
    """Run the container's own health check; return its exit status."""
    words = CONTAINER.partition("HEALTHCHECK")[2].partition("CMD ")[2]
    command = json.loads(words.replace("\\\n", ""))
    command[0] = sys.executable
    environ = {"METRICS_PORT": f"0.0.0.0:{port}"}
    return subprocess.run(
        command, env=environ, capture_output=True, check=False
    ).returncode


def test_the_health_check_asks_the_right_port_and_scheme(tmp_path: Path) -> None:
    """It passes with keys, TLS and another PORT, and fails where nobody listens."""
    certificate, key = write(tmp_path)
    port = free_port()
    server = ServerProcess(
        tmp_path / "log",
        METRICS_PORT=str(port),
        TLS_CERT_FILE=str(certificate),
        TLS_KEY_FILE=str(key),
        API_KEYS="a-client-key",
        ADMIN_KEYS="an-admin-key",
    )
    assert server.url.startswith("https://")
    try:
        assert health_check(port) == 0
    finally:
        server.stop()
    assert health_check(port) != 0


@pytest.fixture(name="kinds")
def _kinds() -> dict[str, Any]:
    """Kubernetes' objects by their kind."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_probes_and_the_scraper_ask_the_management_port(kinds: dict[str, Any]) -> None:
    """They have no key; the Service does not lead there, and the policy guards it."""
    template = kinds["Deployment"]["spec"]["template"]
    container = template["spec"]["containers"][0]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    env = {one["name"]: one["value"] for one in container["env"]}
    assert env["METRICS_PORT"] == f"0.0.0.0:{ports['management']}"
    scraped = template["metadata"]["annotations"]["prometheus.io/port"]
    assert scraped == str(ports["management"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "management"
    assert [one["targetPort"] for one in kinds["Service"]["spec"]["ports"]] == ["http"]
    rules = kinds["NetworkPolicy"]["spec"]["ingress"]
    guarded = {rule["ports"][0]["port"]: "from" in rule for rule in rules}
    assert guarded == {"http": False, "management": True}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_route_bounds_no_response(kinds: dict[str, Any]) -> None:
    """Gateway API: no timeout over a whole stream, and the Service's own port."""
    (rule,) = kinds["HTTPRoute"]["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    (backend,) = rule["backendRefs"]
    (port,) = kinds["Service"]["spec"]["ports"]
    assert (backend["name"], backend["port"]) == ("trio-ai-stream", port["port"])
    assert "Ingress" not in kinds
