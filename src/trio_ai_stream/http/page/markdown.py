"""Markdown as a tree that the page builds its elements from.

No markup leaves the server: HTML in an answer is text here, a text is text there, and
links that could run something are no links (`MarkdownIt.validateLink`). An image is a
link, because the page loads nothing from elsewhere.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.token import Token

    Rule = Callable[[StateBlock, int, int, bool], bool]

# A parser's time may grow with the square of a hostile text: 8 kB take 0.15 s at worst.
MAX_TEXT: Final = 8000
# What is nested deeper is text: the parser leaves out what is beyond its `maxNesting`.
DEEPEST: Final = 18
MAX_NESTING: Final = DEEPEST + 2  # a list is two levels
# The parser fills up short rows to the width of the head. A table of full rows has no
# more cells than this in so much text.
MAX_CELLS: Final = MAX_TEXT // 2
# The page's own headings stand above an answer's.
HEADINGS: Final = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6"}
BREAKS: Final = {"softbreak", "hardbreak"}
LEAVES: Final = {"code_inline": "code", "fence": "pre", "code_block": "pre", "hr": "hr"}

Node = str | list[Any]
"""A text, or `[tag, attributes, child, …]`."""


def blocks(text: str) -> list[tuple[int, Node]]:
    """Return the blocks of `text`, each with the line that it begins in (from 0)."""
    tokens = _parser().parse(text)
    found: list[tuple[int, Node]] = []
    first = 0
    for number, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            begins = tokens[first].map
            found += [
                (begins[0] if begins else 0, n)
                for n in _nodes(tokens[first : number + 1])
            ]
            first = number + 1
    return found


@functools.cache
def _parser() -> MarkdownIt:
    # A tenth of a second, which only a page needs.
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import blockquote, list_block, table

    options = {"html": False, "maxNesting": MAX_NESTING}
    parser = MarkdownIt("commonmark", options)
    ends = ["paragraph", "reference", "blockquote"]  # what such a block may end
    rules = parser.block.ruler
    rules.at("blockquote", _shallow(blockquote), {"alt": [*ends, "list"]})
    rules.at("list", _shallow(list_block), {"alt": ends})
    rules.at("table", _small(table), {"alt": ends[:2]})
    return parser.enable(["table", "strikethrough"]).disable("image")


def _shallow(rule: Rule) -> Rule:
    def shallow(state: StateBlock, line: int, end: int, silent: bool) -> bool:
        return state.level < DEEPEST and rule(state, line, end, silent)

    return shallow


def _small(table: Rule) -> Rule:
    def small(state: StateBlock, line: int, end: int, silent: bool) -> bool:
        if not table(state, line, end, True):
            return False
        first = last = line + 2
        while last < end and not state.isEmpty(last):
            last += 1
        delimiter = state.getLines(line + 1, first, state.blkIndent, False)
        fits = (delimiter.count("|") + 1) * (last - first) <= MAX_CELLS
        return fits and (silent or table(state, line, end, False))

    return small


def _nodes(tokens: Sequence[Token]) -> list[Node]:
    """Return the nodes of a balanced run of tokens."""
    open_: list[list[Any]] = [[]]
    for token in tokens:
        if token.nesting == 1:
            node: list[Any] = [HEADINGS.get(token.tag, token.tag), _attributes(token)]
            # A tight list's paragraphs are hidden: their text is the item's own.
            if not token.hidden:
                open_[-1].append(node)
            open_.append(open_[-1] if token.hidden else node)
        elif token.nesting == -1:
            open_.pop()
        elif token.type == "inline":
            open_[-1].extend(_nodes(token.children or []))
        elif token.type in BREAKS:
            open_[-1].append("\n")
        elif tag := LEAVES.get(token.type):
            open_[-1].append(_leaf(tag, token))
        elif token.content:
            open_[-1].append(token.content)
    return open_[0]


def _leaf(tag: str, token: Token) -> list[Any]:
    if tag == "pre":
        return ["pre", {"language": token.info.partition(" ")[0]}, token.content]
    return [tag, {}, token.content] if token.content else [tag, {}]


def _attributes(token: Token) -> dict[str, str]:
    """Return what the page needs; a column's style would break its policy."""
    given = {name: str(value) for name, value in token.attrs.items()}
    wanted = ("href", "title", "start")
    kept: dict[str, str] = {name: given[name] for name in wanted if name in given}
    if style := given.get("style", ""):
        kept["align"] = style.removeprefix("text-align:")
    return kept
