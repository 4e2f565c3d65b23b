"""How long a text is in the measure that tokens go by.

A token holds about four letters of an alphabet, but hardly more than one character of
Chinese, Japanese or Korean, so such a character counts as three letters.
"""

from __future__ import annotations

import re
from typing import Final

EXTRA: Final = 2
"""What a wide character counts beyond one."""
# The first bytes in UTF-8 of all characters from U+3000 on.
_WIDE: Final = bytes(range(0xE3, 0xF5))
_ESCAPED: Final = re.compile(rb"\\u[3-9A-Fa-f]")


def text_size(text: str) -> int:
    """Return the size of a text in letters."""
    if text.isascii():
        return len(text)
    return len(text) + EXTRA * _wide(text.encode("utf-8", "surrogatepass"))


def json_extra(body: bytes) -> int:
    """Return what the wide characters of a JSON document count beyond one each."""
    if not body.isascii():
        return EXTRA * _wide(body)
    return EXTRA * len(_ESCAPED.findall(body))


def _wide(utf8: bytes) -> int:
    return len(utf8) - len(utf8.translate(None, _WIDE))
