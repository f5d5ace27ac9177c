"""Two replicas behind one server: kill -9 of one under load loses no request and no token."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.http_server import Server, serving

TOKENS = 24
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 10, "maxLength": 40},
        "numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 5, "maxItems": 9},
    },
    "required": ["name", "numbers"],
    "additionalProperties": False,
}
KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 1.0, "seed": 7, "frequency_penalty": 0.5, "min_tokens": TOKENS},
    {
        "temperature": 0.8,
        "seed": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    },
    {"temperature": 0.7, "seed": 5, "n": 2, "logprobs": True, "top_logprobs": 2, "stop": ["river"]},
)


@pytest.fixture(scope="module")
def replicas() -> Iterator[Server]:
    with serving("--replicas", "2", "--enable-metrics", "--max-model-len", "2048") as running:
        yield running


def engines(server: Server) -> list[int]:
    """Return the process ids of the engines."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "engine" in Path(f"/proc/{child}/cmdline").read_text()]


def body(number: int) -> dict[str, Any]:
    content = f"Write a story about {number + 2} friends at a river."
    fields: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": content}]}
    fields |= {"max_tokens": TOKENS, "stream": number % 4 != 3 or number < 8}
    if fields["stream"]:
        fields["stream_options"] = {"include_usage": True}
    return fields | KINDS[number % 4]


async def answers(server: Server, *, kill_at: int | None = None) -> list[dict[str, Any]]:
    """Return 16 responses. One engine is killed once this many events have arrived."""
    events = 0

    async def ask(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
        nonlocal events
        if not body(number)["stream"]:
            return essence([(await client.post("/chat/completions", json=body(number))).json()], "message")
        chunks = []
        async with client.stream("POST", "/chat/completions", json=body(number)) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    events += 1
                    chunks.append(json.loads(line.removeprefix("data: ")))
        return essence(chunks, "delta")

    async def kill() -> None:
        while kill_at is not None and events < kill_at:
            await asyncio.sleep(0.005)
        if kill_at is not None:
            os.kill(engines(server)[0], signal.SIGKILL)

    async with httpx.AsyncClient(base_url=server.api, timeout=120) as client:
        *responses, _ = await asyncio.gather(*(ask(client, number) for number in range(16)), kill())
    return responses


def essence(chunks: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """Return what must not depend on the engines that generate: texts, logprobs, reasons and usage."""
    texts: dict[int, str] = {}
    logprobs: dict[int, list[Any]] = {}
    reasons, usage = {}, None
    for chunk in chunks:
        assert "error" not in chunk, chunk
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            index = choice["index"]
            texts[index] = texts.get(index, "") + (choice[part].get("content") or "")
            logprobs.setdefault(index, []).extend((choice.get("logprobs") or {}).get("content") or ())
            reasons[index] = choice["finish_reason"] or reasons.get(index)
    assert usage is not None
    counts = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return {"texts": texts, "logprobs": logprobs, "reasons": reasons, "usage": counts}


def metrics(server: Server, name: str) -> dict[str, float]:
    """Return the values of a metric of each replica."""
    found = {}
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith(f"furiosa_llm:replica_{name}{{"):
            found[line.partition('replica="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
    return found


def test_a_killed_engine_changes_no_output_and_comes_back(replicas: Server) -> None:
    undisturbed = asyncio.run(answers(replicas))
    before = engines(replicas)
    assert len(before) == 2
    disturbed = asyncio.run(answers(replicas, kill_at=110))
    for number, (expected, got) in enumerate(zip(undisturbed, disturbed, strict=True)):
        assert got == expected, (number, body(number))
    for number in range(2, 16, 4):
        text = undisturbed[number]["texts"][0]
        assert undisturbed[number]["reasons"][0] == "length" or json.loads(text)["numbers"]
    assert sum(metrics(replicas, "resumed_requests_total").values()) > 0
    deadline = time.monotonic() + 60
    while 0 in metrics(replicas, "ready").values() and time.monotonic() < deadline:
        assert httpx.get(f"{replicas.url}/ready").status_code == 200, "one replica is enough"
        time.sleep(0.1)
    assert metrics(replicas, "ready") == {"replica-0": 1, "replica-1": 1}
    assert sum(metrics(replicas, "restarts_total").values()) == 1
    assert len(set(engines(replicas)) - set(before)) == 1
    assert "replica-0, replica-1" in replicas.log() or "replica-1, replica-0" in replicas.log()


def test_turns_of_a_chat_find_their_history_in_the_cache(replicas: Server) -> None:
    cached = []
    chats = [[{"role": "user", "content": f"List {n} cities with their rivers. " * 8}] for n in range(4)]
    for turn in range(3):
        for messages in chats:
            response = httpx.post(
                f"{replicas.api}/chat/completions",
                json={"model": "m", "messages": messages, "max_tokens": 8, "temperature": 0},
                timeout=60,
            ).json()
            if turn:
                cached.append(response["usage"]["prompt_tokens_details"]["cached_tokens"])
                assert cached[-1] >= 80 * turn * 0.8
            messages += [response["choices"][0]["message"], {"role": "user", "content": "And more? " * 20}]
    assert min(metrics(replicas, "received_requests_total").values()) > 0
