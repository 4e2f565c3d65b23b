"""npm's packages, installed once a machine."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path


def installed(files: Mapping[str, str]) -> Path:
    """Return a folder with these files, and with what their package.json asks for."""
    name = hashlib.sha256(files["package.json"].encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"trio-ai-stream-npm-{name}"
    folder.mkdir(exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        words = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--silent"]
        subprocess.run(words, cwd=folder, check=True, timeout=120)
    return folder
