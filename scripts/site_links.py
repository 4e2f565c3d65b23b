"""A hook of MkDocs: links that lead out of docs/ become plain words on the site.

In the repository they lead to code and tests, which the site does not have.
"""

from __future__ import annotations

import re
from typing import Any

OUTWARD = re.compile(r"\[([^\]]+)\]\((?:\.\./|deploy\))[^)]*\)?")


def on_page_markdown(markdown: str, **_context: Any) -> str:
    """Return a page's text without its links to code."""
    return OUTWARD.sub(r"\1", markdown)
