"""Debian's Firefox, without a screen, over WebDriver BiDi.

Playwright drives builds of its own, and of the system's only newer ones than Debian's.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.support.serving import PATIENCE_S, until

PREFERENCES = {
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.active-protocols": 1,  # BiDi
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """A browser; `complaints` are the errors in its console."""

    def __init__(self, program: str, home: Path) -> None:
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});"
            for name, value in PREFERENCES.items()
        ]
        (home / "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [
                *[program, "--headless", "--no-remote", "--profile", str(home)],
                *["--remote-debugging-port", "0"],
            ],
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        said = home / "WebDriverBiDiServer.json"
        until(lambda: said.exists() and said.read_text().endswith("}"))
        port = json.loads(said.read_text())["ws_port"]
        self._socket = connect(f"ws://127.0.0.1:{port}/session", max_size=None)
        self._calls = 0
        self._users: dict[str, str] = {}
        self.complaints: list[str] = []
        self._call("session.new", capabilities={})
        self._call("session.subscribe", events=["log.entryAdded"])

    def _call(self, method: str, **params: Any) -> Any:
        self._calls += 1
        call = {"id": self._calls, "method": method, "params": params}
        self._socket.send(json.dumps(call))
        while True:
            heard = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if heard.get("method") == "log.entryAdded":
                entry = heard["params"]
                self.complaints += [entry["text"]] * (entry["level"] == "error")
            elif heard.get("id") == self._calls:
                assert heard["type"] == "success", heard
                return heard["result"]

    def visit(self, url: str) -> str:
        """Open a page as somebody who has never been here; return its window."""
        user: str = self._call("browser.createUserContext")["userContext"]
        return self._open(url, user)

    def beside(self, window: str, url: str) -> str:
        """Open a page in another window of the same visitor."""
        return self._open(url, self._users[window])

    def _open(self, url: str, user: str) -> str:
        made = self._call("browsingContext.create", type="window", userContext=user)
        window: str = made["context"]
        self._users[window] = user
        self._call("browsingContext.navigate", context=window, url=url, wait="complete")
        return window

    def reload(self, window: str) -> None:
        """Load the page again, as F5 does."""
        self._call("browsingContext.reload", context=window, wait="complete")

    def press(self, window: str, *keys: str) -> None:
        """Press keys one after the other."""
        acts = [
            {"type": kind, "value": key}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        source = {"type": "key", "id": "keys", "actions": acts}
        self._call("input.performActions", context=window, actions=[source])

    def value(self, window: str, expression: str) -> Any:
        """Return what an expression of JavaScript is in the page, as JSON."""
        said = self._call(
            "script.evaluate",
            expression=f"JSON.stringify(({expression}) ?? null)",
            target={"context": window},
            awaitPromise=False,
        )
        assert said["type"] == "success", said
        return json.loads(said["result"]["value"])

    def wait(self, window: str, condition: str) -> None:
        """Wait until a condition holds in the page."""
        until(lambda: self.value(window, f"Boolean({condition})"))

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(PATIENCE_S)
