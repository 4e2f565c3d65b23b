"""What an event costs in each dialect, from upstream's bytes to the client's.

`python -m bench.dialects`: decoder, transcript and encoder in one process, for events
that arrive alone and in blocks; the least of many rounds. No sockets.
"""

from __future__ import annotations

import time
from typing import Final

from trio_ai_stream.dialects.agent_responses import RESPONSES
from trio_ai_stream.dialects.completions import COMPLETIONS
from trio_ai_stream.dialects.messages import MESSAGES
from trio_ai_stream.stream.transcript import Transcript
from trio_ai_stream.upstream.decoder import Decoder
from trio_ai_stream.wire.dialect import Dialect, ParsedRequest
from trio_ai_stream.wire.events import Answer

EVENTS: Final = 12_800
ROUNDS: Final = 25
PIECES: Final = (
    (
        COMPLETIONS,
        b'data: {"id":"gen-abc123","provider":"OpenAI","model":"openai/gpt-4o",'
        b'"object":"chat.completion.chunk","created":1677652288,"choices":[{"index":0,'
        b'"delta":{"role":"assistant","content":" Hello"},"finish_reason":null,'
        b'"native_finish_reason":null,"logprobs":null}]}\n\n',
    ),
    (
        MESSAGES,
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,'
        b'"delta":{"type":"text_delta","text":" Hello"}}\n\n',
    ),
    (
        RESPONSES,
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta"'
        b',"sequence_number":17,"delta":" Hello","item_id":"msg_0_gen-abc123",'
        b'"output_index":0,"content_index":0,"logprobs":[]}\n\n',
    ),
)


def cost_us(dialect: Dialect, event: bytes, block: int) -> float:
    """Return the CPU microseconds of an event that arrives with others."""
    data, least = event * block, float("inf")
    for _ in range(ROUNDS):
        decoder = Decoder(
            raw=dialect.raw,
            named=True,
            read=dialect.read_events,
            whole_events=dialect.whole_events,
        )
        transcript = Transcript(Answer())
        encoder = dialect.encoder(ParsedRequest("m", True, b""), "r", "simulator")
        began = time.process_time()
        for _ in range(EVENTS // block):
            items = decoder.feed(data)
            transcript.note(items)
            encoder.content(items)
        least = min(least, time.process_time() - began)
    return least / EVENTS * 1e6


def main() -> None:
    """Print a row for each size of block."""
    for block in (1, 10, 128):
        costs = [cost_us(dialect, event, block) for dialect, event in PIECES]
        row = "  ".join(
            f"{dialect.path} {cost:.2f} us ({cost / costs[0]:.2f})"
            for (dialect, _), cost in zip(PIECES, costs, strict=True)
        )
        print(f"{block} at a time: {row}")


if __name__ == "__main__":
    main()
