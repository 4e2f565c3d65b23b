"""A hook of MkDocs: links between the documents, wherever they lie in the repository.

Some documents lie outside docs/ and are pages of the site all the same (`extra: pages`
in mkdocs.yml). A link to one of them, or to a page in docs/, leads there. A link to
code, which the site does not have, becomes plain words. A link to a page that is not
there stays as it is, and the strict build stops at it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parent.parent
LINK: Final = re.compile(
    r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the documents that lie outside docs/."""
    for source, page in config.extra["pages"].items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_context: Any) -> str:
    """Return a page's text with its links as the site needs them."""
    pages: dict[str, str] = config.extra["pages"]
    origins = {there: source for source, there in pages.items()}
    name: str = page.file.src_uri
    source = origins.get(name, f"docs/{name}")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        path = "docs/index.md" if path == "README.md" else path
        inside = path.startswith("docs/") and not (ROOT / path).is_dir()
        if not inside and path not in pages:
            return text
        there = pages.get(path, path.removeprefix("docs/"))
        there = posixpath.relpath(there, posixpath.dirname(name) or ".")
        return f"[{text}]({there}{anchor})"

    return LINK.sub(link, markdown)
