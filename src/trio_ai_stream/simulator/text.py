"""Plausible text for any prompt: the same words for the same prompt and seed, always.

Pure. A token is a word with the white space before it, at most LONGEST_WORD long, and
the tokens of a text put together are that text. The sentences hold what a decoder must
survive: accents, other scripts, emoji with joiners, quotes, backslashes, tabs, newlines
and U+2028, which is a line end for `str.splitlines` and none for server-sent events.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Iterator

SENTENCES: tuple[str, ...] = (
    "A nursery does not end before every task it started has ended.",
    "That one rule makes the rest of the program easier to reason about.",
    "Think of a stream as a promise with a deadline: it arrives, or somebody says why.",
    "The first word matters most, because until it comes nobody knows if it will.",
    "Backpressure is nothing more than the plain blocking of a write.",
    "When the reader slows down, the writer should feel it and slow down as well.",
    "A timeout belongs to the caller, who knows what the answer is worth.",
    "Measure before you believe, and measure again after you have changed it.",
    "It depends on what you want to keep when something goes wrong.",
    "In most cases the simple version is fast enough, and it is always easier to mend.",
    "Cancelling is not an error; forgetting what was cancelled is one.",
    "A queue without a bound is only a slow way to run out of memory.",
    "Some say \u201cfail fast\u201d; others say \u201ctell the truth early\u201d.",
    "In a caf\u00e9 in K\u00f8benhavn this was drawn on a napkin, na\u00efvely.",
    "\u69cb\u9020\u5316\u3055\u308c\u305f\u4e26\u884c\u6027 is the term in Japanese.",
    "\u0421\u0442\u0440\u0443\u043a\u0442\u0443\u0440\u0430 is half of the answer.",
    "That deserves a celebration \U0001f389, or at least a cup of tea \U0001f375.",
    "The whole family \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 fits "
    "into one character on the screen and into seven code points on the wire.",
    'The path was C:\\temp\\new and the key was "quoted", so it had to be escaped.',
    "This line ends with a separator\u2028that only JSON lets through unharmed.",
    "Write the test first if you can say the rule in a sentence.",
    "If you can not say it in a sentence, it is two rules.",
    "Small pieces that fit beat large pieces that almost fit.",
    "Nothing here is new; it has only been written down in one place.",
)
BLOCKS: tuple[str, ...] = (
    "Three things follow:\n\n- every task has a parent,\n- every wait has a bound,\n"
    "- every ending has a **name**.",
    "In code it looks like this:\n\n```python\n"
    "async with trio.open_nursery() as nursery:\n"
    "\tnursery.start_soon(work, 1)\n\tnursery.start_soon(work, 2)\n```",
    "| cause | outcome |\n|---|---|\n| end of stream | `completed` |\n"
    "| reader left | `cancelled` |",
    "1. Say what you expect.\n2. Say what came.\n3. Say what to do about it.",
)
REASONS: tuple[str, ...] = (
    "The question seems simple, so a short answer should do.",
    "Let me check the two cases that differ.",
    "Both lead to the same place, which is reassuring.",
    "I should mention the exception as well.",
)
REFUSAL = "I am sorry, but I can not help with that."


LONGEST_WORD = 14
SHORTEST_ANSWER, LONGEST_ANSWER = 40, 120  # tokens; then the sentence is finished

_TOKEN = re.compile(rf"\s*\S{{1,{LONGEST_WORD}}}|\s+")


def tokenize(text: str) -> tuple[str, ...]:
    """Cut a text into tokens; joined they are the text again, whatever it holds."""
    return tuple(_TOKEN.findall(text))


_SENTENCES = tuple(tokenize(sentence) for sentence in SENTENCES)
_BLOCKS = tuple(tokenize(block) for block in BLOCKS)
_REASONS = tuple(tokenize(" " + reason) for reason in REASONS)


def seed_of(prompt: str, seed: int | None) -> int:
    """Turn a prompt and the request's `seed` into the generator's seed."""
    text = f"{seed}\0{prompt}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def _opening(prompt: str) -> str:
    words = prompt.split()[:6]
    topic = " ".join(words)[:60]
    return f"You asked about \u201c{topic}\u201d." if topic else "You asked nothing."


def sentences(prompt: str, seed: int) -> Iterator[tuple[str, ...]]:
    """Yield the answer's sentences, each as its tokens, without end."""
    choice = random.Random(seed)  # noqa: S311  it picks words, it keeps no secret
    yield tokenize(_opening(prompt))
    while True:
        order = choice.sample(_SENTENCES, len(_SENTENCES))
        for number, sentence in enumerate(order):
            # Paragraphs have three sentences; what follows a block is one of its own.
            yield _glued("\n\n" if number % 3 == 0 else " ", sentence)
            if number % 6 == 5:
                yield _glued("\n\n", choice.choice(_BLOCKS))


def _glued(space: str, tokens: tuple[str, ...]) -> tuple[str, ...]:
    return (space + tokens[0], *tokens[1:])


def stream_of_tokens(prompt: str, seed: int) -> Iterator[str]:
    """Yield the answer's tokens without end."""
    return itertools.chain.from_iterable(sentences(prompt, seed))


def whole_answer(prompt: str, seed: int) -> tuple[str, ...]:
    """Return an answer of natural length that ends with a sentence."""
    wanted = SHORTEST_ANSWER + seed % (LONGEST_ANSWER - SHORTEST_ANSWER)
    tokens: list[str] = []
    for sentence in sentences(prompt, seed):
        tokens.extend(sentence)
        if len(tokens) >= wanted:
            break
    return tuple(tokens)


def reasoning(count: int) -> tuple[str, ...]:
    """Return so many tokens of reasoning."""
    words = itertools.cycle(itertools.chain.from_iterable(_REASONS))
    return tuple(itertools.islice(words, count))


def cut_at_stop(
    tokens: Iterable[str], stop: tuple[str, ...]
) -> tuple[tuple[str, ...], str] | None:
    """Return the tokens before the first stop sequence, and it; None without one."""
    known = tuple(tokens)
    text = "".join(known)
    found = [(at, word) for word in stop if word and (at := text.find(word)) >= 0]
    if not found:
        return None
    left, word = min(found)
    kept: list[str] = []
    for token in known:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return tuple(kept), word
