"""Plausible text for any prompt: the same words for the same prompt and seed, always.

Pure. A token is a word with the white space before it, at most LONGEST_WORD long, and
the tokens of a text put together are that text.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Iterator

from trio_ai_stream.simulator.prose import BLOCKS, REASONS, SENTENCES

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
            if number % 3 == 2:
                yield _glued("\n\n", sentence)
            else:
                yield _glued(" ", sentence)
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


def cut_at_stop(tokens: Iterable[str], stop: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the tokens before the first stop sequence, or None if there is none."""
    known = tuple(tokens)
    text = "".join(known)
    found = [at for at in (text.find(word) for word in stop if word) if at >= 0]
    if not found:
        return None
    left = min(found)
    kept: list[str] = []
    for token in known:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return tuple(kept)
