"""Over real sockets: each fault as a client sees it, and the endpoints."""

from __future__ import annotations

import json

import pytest
import trio

from tests.simulator.client import Response, Running, body_of
from trio_ai_stream.simulator.faults import PRESETS
from trio_ai_stream.simulator.simulator import Address


async def test_address(running: Running) -> None:
    """`started` gives the bound address and the base URL for a client."""
    port = running.address.port
    assert running.address.base_url == f"http://127.0.0.1:{port}/api/v1"
    assert Address("::1", 80).base_url == "http://[::1]:80/api/v1"


async def test_a_stream_over_a_socket(running: Running) -> None:
    """A stream has its headers and a proper end, and leaves the connection open."""
    client = await running.connect()
    async with client.stream:
        for number in (1, 2):
            response = await client.ask(
                body=body_of("any/model"), headers={"x-request-id": f"r{number}"}
            )
            assert response.status == 200
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["x-generation-id"] == response.events[0]["id"]
            assert response.complete
            record = await running.simulator.ledger.wait_for(f"r{number}", "ended")
            assert record.outcome == "finished"
            assert record.events_sent == len(response.data)
    assert running.simulator.connections <= 1


STATUSES = {
    f"simulator/fast?status={status}": status
    for status in (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504)
} | {"simulator/edge-timeout": 524, "simulator/provider-overloaded": 529}


@pytest.mark.parametrize("model", STATUSES)
async def test_a_status_is_answered(running: Running, model: str) -> None:
    """A status asked for is the response's, streamed or not, with a matching body."""
    for stream in (True, False):
        response = await running.ask(model, stream=stream)
        assert response.status == STATUSES[model]
        assert response.complete
        if response.headers["content-type"] == "application/json":
            assert response.json["error"]["code"] == STATUSES[model]
        else:
            assert b"cloudflare" in response.body


async def test_retry_after_and_rate_limit_headers(running: Running) -> None:
    """429 carries Retry-After and X-RateLimit, which no other response does."""
    headers = (await running.ask("simulator/rate-limited")).headers
    assert headers["retry-after"] == "2"
    assert headers["x-ratelimit-remaining"] == "0"
    assert "x-ratelimit-limit" not in (await running.ask("simulator/fast")).headers


async def test_an_error_under_200(running: Running) -> None:
    """An error can come under 200, as JSON or as the first event."""
    plain = await running.ask("simulator/error-200-json")
    assert (plain.status, plain.json["error"]["code"]) == (200, 502)
    first = await running.ask("simulator/error-first")
    assert (first.status, first.events[0]["error"]["code"]) == (200, 502)


@pytest.mark.parametrize(
    ("body", "length"), [("empty", 0), ("text", 28), ("availability", None)]
)
async def test_bodies_of_errors(
    running: Running, body: str, length: int | None
) -> None:
    """An error's body can be empty, plain text, or the newer shape."""
    response = await running.ask(f"simulator/fast?status=502&body={body}")
    assert response.status == 502
    assert length in (None, len(response.body))


async def test_flaky_recovers(running: Running) -> None:
    """`fail_times` fails so often for one request id, then answers well."""
    client = await running.connect()
    async with client.stream:
        statuses = [
            (await client.ask(body=body_of("simulator/flaky"), headers=headers)).status
            for headers in [{"x-request-id": "same"}] * 4 + [{"x-request-id": "other"}]
        ]
    assert statuses == [503, 503, 200, 200, 503]


@pytest.mark.parametrize("name", ["drop", "reset"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_broken_body(running: Running, name: str, stream: bool) -> None:
    """A dropped or reset response is one without a proper end."""
    response = await running.ask(f"simulator/{name}", stream=stream)
    assert not response.complete
    if stream:
        assert len(response.events) == 5
    record = running.simulator.ledger.find()[-1]
    assert (record.outcome, record.gone_how) == ("fault", None)


async def test_reset_is_a_reset_and_drop_is_not(running: Running) -> None:
    """`drop` ends with FIN, `reset` with RST."""
    for name, raised in (("refuse", False), ("refuse-reset", True)):
        client = await running.connect()
        async with client.stream:
            await client.send(body=body_of(f"simulator/{name}"))
            if raised:
                with pytest.raises(trio.BrokenResourceError):
                    await client.stream.receive_some(10)
            else:
                assert await client.stream.receive_some(10) == b""


async def test_truncated_is_a_proper_end_of_a_cut_stream(running: Running) -> None:
    """`truncated` ends the body well and the stream badly."""
    response = await running.ask("simulator/truncated")
    assert response.complete
    assert b"[DONE]" not in response.data
    assert response.events[-1]["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("model", ["close-delimited", "fast?keep_alive=0"])
async def test_connections_that_end(running: Running, model: str) -> None:
    """A response can be the last of its connection, and says so."""
    client = await running.connect()
    async with client.stream:
        response = await client.ask(body=body_of(f"simulator/{model}"))
        assert response.headers["connection"] == "close"
        assert response.complete
        assert response.data[-1] == b"[DONE]"
        assert await client.stream.receive_some(1) == b""


async def test_an_interim_response(running: Running) -> None:
    """`interim` sends a 103 before the true response."""
    response = await running.ask("simulator/fast?interim=1")
    assert (response.interim, response.status) == ([103], 200)


async def test_body_cut_short(running: Running) -> None:
    """`body=cut` promises more bytes than it sends."""
    response = await running.ask("simulator/fast?status=500&body=cut")
    assert (response.status, response.complete) == (500, False)


@pytest.mark.parametrize(
    ("key", "status"), [("sk-invalid", 401), ("sk-nocredit", 402), ("sk-any", 200)]
)
async def test_keys(running: Running, key: str, status: int) -> None:
    """Two keys are refused as OpenRouter refuses them; any other is good."""
    headers = {"authorization": f"Bearer {key}"}
    client = await running.connect()
    async with client.stream:
        response = await client.ask(body=body_of("simulator/fast"), headers=headers)
        assert response.status == status
        assert (await client.get("/key", headers=headers)).status == status
        path = "/api/v1/messages/count_tokens"
        assert (await client.ask(path, b"{}", headers=headers)).status == status


async def test_bad_requests(running: Running) -> None:
    """A request that cannot be answered is a 400 or 404 in OpenRouter's shape."""
    for model, status, named in (
        ("simulator/nope", 400, "nope"),
        ("simulator/fast?chunks=x", 400, "chunks"),
        ("anthropic/claude-3.5-sonnet", 404, "No endpoints"),
    ):
        response = await running.ask(model)
        assert response.status == status
        assert named in response.json["error"]["message"]


async def test_models_are_the_fault_menu(running: Running) -> None:
    """Every preset is listed as a model with its description."""
    client = await running.connect()
    async with client.stream:
        models = (await client.get("/models")).json["data"]
    listed = {model["id"]: model["description"] for model in models}
    for name, preset in PRESETS.items():
        assert listed[f"simulator/{name}"] == preset.description
    assert "~anthropic/claude-sonnet-latest" in listed


async def test_generation_and_stats(running: Running) -> None:
    """What was streamed can be looked up by generation id and by request id."""
    client = await running.connect()
    async with client.stream:
        response = await client.ask(
            body=body_of("simulator/fast?chunks=4"), headers={"x-request-id": "me"}
        )
        found = response.headers["x-generation-id"]
        bill = (await client.get(f"/generation?id={found}")).json["data"]
        assert (bill["tokens_completion"], bill["cancelled"]) == (4, False)
        assert (await client.get("/generation?id=gen-nope")).status == 404
        stats = (await client.get("/stats?request_id=me")).json
        assert [entry["id"] for entry in stats["requests"]] == [found]
        assert (stats["live"], stats["total"]) == (0, 1)
        assert (await client.get("/stats?since=1")).json["requests"] == []
        assert (await client.get("/stats?since=x")).status == 400
        assert (await client.get("/stats?since=" + "9" * 5000)).status == 400
        await client.ask("/api/v1/stats", method="DELETE")
        assert (await client.get("/stats")).json["requests"] == []
        for path in ("/nope", "/chat/completions"):
            assert (await client.get(path)).status == 404


async def test_a_bill_may_be_late_or_never_or_wrong(running: Running) -> None:
    """What OpenRouter may do about `GET /generation` can be asked for by name."""
    client = await running.connect()
    async with client.stream:

        async def bill(faults: str) -> Response:
            model = f"simulator/fast?chunks=4&{faults}"
            response = await client.ask(body=body_of(model))
            found = response.headers["x-generation-id"]
            return await client.get(f"/generation?id={found}")

        right = (await bill("reasoning=3&provider=Deaf")).json["data"]
        assert right["native_tokens_completion"] == 7
        assert right["native_tokens_reasoning"] == 3
        assert right["provider_name"] == "Deaf"
        assert right["total_cost"] == pytest.approx(3e-6 + 7 * 15e-6)
        assert (await bill("bill=never")).status == 404
        assert (await bill("bill_ms=60000")).status == 404
        assert (await bill("bill=odd")).json["data"]["total_cost"] == -1
        assert (await bill("bill=wrong")).json["data"]["id"] == "gen-another"
        refused = await client.ask(body=body_of("simulator/server-error"))
        assert "x-generation-id" not in refused.headers
        (last,) = (await client.get("/stats")).json["requests"][-1:]
        assert last["bill"] is None


async def test_rubbish_ends_the_connection_alone(running: Running) -> None:
    """Bytes that are not HTTP get a 400 and a closed connection; others go on."""
    client = await running.connect()
    async with client.stream:
        await client.stream.send_all(b"\x16\x03\x01rubbish\r\n\r\n")
        assert (await client.stream.receive_some(100)).startswith(b"HTTP/1.1 400 ")
    assert (await running.ask("simulator/fast")).status == 200


async def test_expect_100_continue(running: Running) -> None:
    """A client that waits for 100 Continue gets it before it sends the body."""
    client = await running.connect()
    async with client.stream:
        body = body_of("simulator/fast?chunks=1")
        head = (
            "POST /api/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
            f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await client.stream.send_all(head.encode())
        line = await client.stream.receive_some(100)
        assert line == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.stream.send_all(body)
        assert (await client.stream.receive_some(100)).startswith(b"HTTP/1.1 200 ")


async def test_tools_and_json(running: Running) -> None:
    """A request with tools is answered by a call in fragments."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    events = (await running.ask("simulator/fast", tools=tools)).events
    call = events[0]["choices"][0]["delta"]["tool_calls"][0]
    assert (call["function"]["name"], call["index"]) == ("f", 0)
    reasons = [c["finish_reason"] for e in events for c in e["choices"]]
    assert reasons[-1] == "tool_calls"
    assert json.loads(json.dumps(events)) == events
