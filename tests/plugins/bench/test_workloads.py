"""What each workload sends, and measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from support.wire_server import (
    LAST_CHUNK,
    WireServer,
    chunk,
    error_response,
    event,
    scripted_server,
    tokens,
)

from fllm_bench.agents import Agents
from fllm_bench.client import Client, ConnectedTarget
from fllm_bench.interference import Interference
from fllm_bench.latency import Latency
from fllm_bench.long_context import LongContext
from fllm_bench.prefill import Prefill
from fllm_bench.prefix import Prefix
from fllm_bench.prompts import Prompts
from fllm_bench.target import RequestOptions, parse_target
from fllm_bench.throughput import Throughput
from fllm_bench.workload import Sample, Workload

ALL = [
    Throughput(concurrencies=(3,), requests=4, words=8, tokens=2),
    Latency(requests=2, words=8, tokens=2, stream=True),
    Latency(requests=2, words=8, tokens=2, stream=False),
    Prefill(concurrencies=(1, 2), requests=3, words=20),
    Prefix(requests=2, prefix_words=30, words=5),
    Interference(requests=3, words=5, long_words=50),
    Agents(concurrencies=(2,), turns=2, prefix_tokens=90, growth_tokens=20, tokens=2),
    LongContext(concurrencies=(1,), requests=2, context=200, tokens=2),
]


def measured(workload: Workload, server: WireServer) -> Sample:
    """One measurement, at the last of its concurrencies."""
    options = RequestOptions(chat=isinstance(workload, Agents))
    target = parse_target(server.url)
    connected = ConnectedTarget(target=target, options=options, model="m", eos_control="ignore_eos")

    async def go() -> Sample:
        async with Client(connected) as client:
            return await workload.measure(client, workload.concurrencies[-1], Prompts("seed"))

    return asyncio.run(go())


def slow_when_long(body: dict[str, Any]) -> Iterator[bytes]:
    """A server that prefills a prompt in 1 ms per word."""
    for _ in range(len(body.get("prompt", "").split())):
        time.sleep(0.001)
        yield b""
    yield from tokens(body)


def prompts_of(server: WireServer) -> list[str]:
    return [body["prompt"] if "prompt" in body else json.dumps(body["messages"]) for body in server.bodies]


def costly_words(body: dict[str, Any]) -> Iterator[bytes]:
    """A server where each word is two tokens, and each message three more; its template shows the tools."""
    messages = body.get("messages") or [{"content": body["prompt"]}]
    counted = sum(3 + 2 * len(each["content"].split()) for each in messages) + len(str(body.get("tools", "")))
    pieces = list(tokens({**body, "messages": messages}))
    usage = {"prompt_tokens": counted, "completion_tokens": body["max_tokens"]}
    yield from pieces[:-1]
    yield chunk(event({"choices": [], "usage": usage}) + event(b"[DONE]")) + LAST_CHUNK


@pytest.mark.parametrize("workload", ALL, ids=lambda workload: type(workload).__name__)
def test_every_workload_measures_all_of_its_metrics(workload: Workload) -> None:
    with scripted_server(slow_when_long) as server:
        sample = measured(workload, server)
    assert set(sample.values) == {metric.name for metric in workload.metrics}
    assert min(sample.values.values()) > 0
    assert sample.log.failures == []
    assert len(set(prompts_of(server))) == len(server.bodies)


@pytest.mark.parametrize("workload", ALL, ids=lambda workload: type(workload).__name__)
def test_every_workload_counts_failures(workload: Workload) -> None:
    with scripted_server(lambda body: [error_response("500 Oops", "it died")]) as server:
        sample = measured(workload, server)
    assert sample.values == {}
    assert sample.log.completions == []
    assert set(sample.log.failures) == {"HTTP 500: it died"}
    assert len(sample.log.failures) == len(server.bodies)


def test_throughput_keeps_the_concurrency() -> None:
    with scripted_server() as server:
        sample = measured(Throughput(concurrencies=(3,), requests=9, words=8, tokens=5), server)
    assert server.connections == 3
    assert len(sample.log.completions) == 9
    assert {(len(body["prompt"].split()), body["max_tokens"]) for body in server.bodies} == {(8, 5)}


def test_throughput_sends_at_least_as_many_requests_as_at_once() -> None:
    with scripted_server() as server:
        measured(Throughput(concurrencies=(7,), requests=2, words=8, tokens=2), server)
    assert len(server.bodies) == server.connections == 7


def test_completions_that_end_early_are_counted() -> None:
    with scripted_server(lambda body: tokens({**body, "max_tokens": 3})) as server:
        sample = measured(Throughput(concurrencies=(1,), requests=2, words=8, tokens=5), server)
    assert (len(sample.log.completions), sample.log.short) == (2, 2)


def test_latency_can_request_whole_responses() -> None:
    with scripted_server() as server:
        sample = measured(Latency(requests=2, words=8, tokens=2, stream=False), server)
    assert not any("stream" in body for body in server.bodies)
    assert set(sample.values) == {"e2e_p50_ms", "e2e_p99_ms"}


def test_prefill_counts_the_servers_own_tokens() -> None:
    with scripted_server() as server:
        sample = measured(Prefill(concurrencies=(1,), requests=3, words=20), server)
    assert sample.values["prompt_tokens"] == 20
    assert {body["max_tokens"] for body in server.bodies} == {1}


def test_prefix_sends_pairs_that_share_a_beginning() -> None:
    with scripted_server() as server:
        measured(Prefix(requests=2, prefix_words=30, words=5), server)
    beginnings = [prompt.split()[:30] for prompt in prompts_of(server)]
    assert beginnings[0] == beginnings[1] != beginnings[2] == beginnings[3]
    assert {len(prompt.split()) for prompt in prompts_of(server)} == {35}


def test_prefix_shows_what_a_cache_saves() -> None:
    known: set[str] = set()

    def cached(body: dict[str, Any]) -> Iterator[bytes]:
        beginning = body["prompt"][:100]
        if beginning not in known:
            known.add(beginning)
            time.sleep(0.05)
        yield from tokens(body)

    with scripted_server(cached) as server:
        sample = measured(Prefix(requests=3, prefix_words=30, words=5), server)
    assert sample.values["shared_to_new"] < 0.5
    assert sample.values["ttft_new_p50_ms"] > 50


def test_interference_is_measured_while_the_long_prompt_lasts() -> None:
    with scripted_server(slow_when_long) as server:
        sample = measured(Interference(requests=3, words=5, long_words=50), server)
    sizes = [len(prompt.split()) for prompt in prompts_of(server)]
    assert sizes[:4] == [5, 5, 5, 50]
    assert len(sizes) > 5
    assert sample.values["ttft_long_ms"] > 50


def test_a_long_prompt_that_is_refused_leaves_only_what_was_measured_alone() -> None:
    def short_only(body: dict[str, Any]) -> Any:
        long = len(body["prompt"].split()) > 10
        return [error_response("400 Bad Request", "too long")] if long else tokens(body)

    with scripted_server(short_only) as server:
        sample = measured(Interference(requests=3, words=5, long_words=50), server)
    assert set(sample.values) == {"ttft_alone_p50_ms", "ttft_alone_p99_ms"}
    assert sample.log.failures == ["HTTP 400: too long"]


@pytest.mark.parametrize(("script", "context"), [(tokens, 1000), (costly_words, 1001)])
def test_a_long_context_has_the_wanted_tokens_whatever_a_word_is(script: Any, context: int) -> None:
    with scripted_server(script) as server:
        sample = measured(LongContext(concurrencies=(1,), requests=1, context=context, tokens=3), server)
    assert sample.values["prompt_tokens"] == context
    assert [body["max_tokens"] for body in server.bodies] == [1, 1, 3]


AGENTS = Agents(concurrencies=(3,), turns=4, prefix_tokens=4001, growth_tokens=202, tokens=8)


@pytest.mark.parametrize("script", [tokens, costly_words])
def test_agents_prompts_have_the_wanted_tokens_on_servers_that_show_the_tools_or_ignore_them(
    script: Any,
) -> None:
    with scripted_server(script) as server:
        sample = measured(AGENTS, server)
    assert sample.log.failures == []
    assert len(sample.log.completions) == 12
    assert sample.values["first_prompt_tokens"] == pytest.approx(4001, abs=1)
    assert sample.values["last_prompt_tokens"] == pytest.approx(4001 + 3 * 202, abs=3)


def test_agents_share_a_prefix_and_grow_by_a_tool_call_and_its_result() -> None:
    with scripted_server() as server:
        measured(AGENTS, server)
    bodies = [body for body in server.bodies if body["max_tokens"] == 8]
    assert all(len(body["tools"]) == 6 for body in server.bodies)
    assert len({body["messages"][0]["content"] for body in bodies}) == 1
    assert len({body["messages"][1]["content"] for body in bodies}) == 3
    by_agent: dict[str, list[Any]] = {}
    for body in bodies:
        by_agent.setdefault(body["messages"][1]["content"], []).append(body["messages"])
    for conversations in by_agent.values():
        assert [len(messages) for messages in conversations] == [2, 4, 6, 8]
        for before, after in pairwise(conversations):
            assert after[: len(before)] == before
            answer, result = after[len(before) :]
            assert (answer["role"], result["role"]) == ("assistant", "tool")
            assert [call["id"] for call in answer["tool_calls"]] == [result["tool_call_id"]]


def test_agents_send_the_same_conversations_again_however_the_requests_are_timed() -> None:
    def slower(body: dict[str, Any]) -> Iterator[bytes]:
        time.sleep(0.002 * (len(body["messages"][1]["content"]) % 7))
        return tokens(body)

    with scripted_server() as server, scripted_server(slower) as other:
        measured(AGENTS, server)
        measured(AGENTS, other)
    assert sorted(prompts_of(server)) == sorted(prompts_of(other))


def test_agents_can_have_a_prefix_each() -> None:
    with scripted_server() as server:
        measured(msgspec.structs.replace(AGENTS, own_prefix=True), server)
    bodies = [body for body in server.bodies if body["max_tokens"] == 8]
    assert len({body["messages"][0]["content"] for body in bodies}) == 3


def test_agents_without_room_for_a_system_prompt_are_a_failure() -> None:
    with scripted_server(costly_words) as server:
        sample = measured(msgspec.structs.replace(AGENTS, prefix_tokens=100), server)
    assert sample.values == {}
    [failure] = sample.log.failures
    assert failure.startswith("no room: without words of their own, the prefix has ")


def test_an_agent_whose_request_fails_sends_no_more() -> None:
    def fails_later(body: dict[str, Any]) -> Any:
        return [error_response("500 Oops", "it died")] if len(body["messages"]) == 6 else tokens(body)

    with scripted_server(fails_later) as server:
        sample = measured(AGENTS, server)
    assert (len(sample.log.completions), len(sample.log.failures)) == (6, 3)
