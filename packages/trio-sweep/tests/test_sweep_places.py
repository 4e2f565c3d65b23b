"""Places and labels lead to the program, not to the library that it waits in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_code_without_a_file_is_swept_in_a_folder_of_a_package(tmp_path: Path) -> None:
    """Such as what attrs makes; its name is taken as it is."""
    (tmp_path / "__init__.py").touch()
    (tmp_path / "program.py").write_text(
        "names = {}\n"
        "exec('async def body():\\n import trio\\n await trio.sleep(1)', names)\n"
        "body = names['body']\n"
        "async def fails():\n"
        "    await body()\n"
        "    exec('1 / 0')\n"
    )
    command = [sys.executable, "-m", "trio_sweep", "--jobs", "1"]
    for name, says in (
        ("body", "no invariant was violated"),
        ("fails", "raised at <string>:1"),
    ):
        done = subprocess.run(
            [*command, f"program.py:{name}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert says in done.stdout
