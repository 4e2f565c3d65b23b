"""Traces of a real server, as a collector gets them."""

from __future__ import annotations

from typing import Any

import trio

from tests.support.otlp import Span, otlp_receiver
from tests.support.process import SERVE, curl, server

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_each_stream_is_a_span_at_the_collector() -> None:
    """A stream, a whole document, a failure: each with its name, parent and fault."""
    with otlp_receiver() as receiver, trio.fail_after(60):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        async with server(SERVE, **env) as running:
            url = f"http://127.0.0.1:{running.port}"
            await curl("-H", f"traceparent: {PARENT}", url + "/chat", data=chat("fast"))
            document: dict[str, Any] = {
                "model": "simulator/default",
                "messages": [{"role": "user", "content": "x"}],
                "stream": False,
            }
            await curl(url + "/v1/chat/completions", data=document)
            await curl(url + "/chat", data=chat("default?status=401"))
            assert await running.stop() == 0
    spans = {span.name: span for span in receiver.spans}
    assert len(receiver.spans) == len(spans) == 3
    streamed = spans["chat simulator/fast"]
    assert (streamed.trace, streamed.parent) == (PARENT[3:35], PARENT[36:52])
    assert streamed.attributes["gen_ai.request.stream"] is True
    assert streamed.attributes["gateway.stream.outcome"] == "completed"
    whole = spans["chat simulator/default"]
    assert whole.attributes["gen_ai.request.stream"] is False
    assert whole.parent == ""
    failed: Span = spans["chat simulator/default?status=401"]
    assert failed.failed
    assert failed.attributes["gateway.stream.fault"] == "server"
    for span in receiver.spans:
        assert span.resource["service.name"] == "trio-ai-stream"
        assert span.attributes["gen_ai.provider.name"] == "simulator"


def chat(model: str) -> dict[str, str]:
    """Return the body of a `/chat`."""
    return {"prompt": "x", "model": f"simulator/{model}"}
