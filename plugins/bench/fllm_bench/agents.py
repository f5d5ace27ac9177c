"""The agents workload: conversations with tools, whose prompts share a prefix and grow with each turn."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

from msgspec import Struct

from fllm_bench.client import Client, Conversation
from fllm_bench.metrics import (
    TPOT_P50,
    TTFT_P50,
    TTFT_P95,
    Metric,
    percentiles_ms,
)
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.response_reader import Completion
from fllm_bench.sizing import Size, measure_size
from fllm_bench.workload import Sample

REQUEST_RATE = Metric("requests_per_s", "req/s", better="higher")
FIRST_TTFT = Metric("ttft_first_turn_p50_ms", "first turn TTFT p50 ms")
FIRST_PROMPT = Metric("first_prompt_tokens", "first prompt tokens", better=None)
LAST_PROMPT = Metric("last_prompt_tokens", "last prompt tokens", better=None)

TASK_WORDS = 32
"""Words of the user's message."""


def _tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    """Return the definition of a function whose parameters are all strings."""
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


TOOLS = [
    _tool("search", "Find files that contain a text.", query="Text to look for.", path="Directory."),
    _tool("read_file", "Return the content of a file.", path="Path of the file."),
    _tool("write_file", "Replace the content of a file.", path="Path.", content="The new content."),
    _tool("run", "Run a command and return what it prints.", command="The command line."),
    _tool("fetch", "Return a web page as text.", url="Address of the page."),
    _tool("ask", "Ask the user a question and wait.", question="The question."),
]


class Agents(Struct, frozen=True, kw_only=True, tag_field="name", tag="agents"):
    """As many agents as requests at once; each sends ``turns`` requests, one after another.

    The first prompt of each is ``prefix_tokens`` long: the tools and a system prompt, which all agents share
    unless ``own_prefix``, and a task of its own. Each turn then adds ``growth_tokens``: a message of the
    assistant with a tool call, and the tool's result. They are prepared, not what the server generates, so
    all servers receive the same conversations.
    """

    concurrencies: tuple[int, ...]
    turns: int
    prefix_tokens: int
    growth_tokens: int
    tokens: int
    own_prefix: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The rate, latencies of the first turn and of all, and the first and the last prompt's length."""
        return (REQUEST_RATE, FIRST_TTFT, TTFT_P50, TTFT_P95, TPOT_P50, FIRST_PROMPT, LAST_PROMPT)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Run all agents; short conversations before tell how the server counts tokens."""
        log = RequestLog()
        words = await self._words(client, log, prompts)
        if words is None:
            return Sample({}, RequestLog(failures=log.failures))
        system_words, result_words = words
        log = RequestLog()
        turns: list[list[Completion]] = [[] for _ in range(self.turns)]
        shared = prompts.text(system_words)
        agents = [
            _Agent(Prompts(prompts.text(8)), prompts.text(system_words) if self.own_prefix else shared)
            for _ in range(concurrency)
        ]
        started = time.perf_counter()
        async with asyncio.TaskGroup() as running:
            for agent in agents:
                running.create_task(self._run(client, log, agent, result_words, turns))
        return Sample(_values(turns, time.perf_counter() - started), log)

    async def _run(
        self, client: Client, log: RequestLog, agent: _Agent, words: int, turns: list[list[Completion]]
    ) -> None:
        """Send the requests of one agent until one fails, and note their completions by turn."""
        for completions in turns:
            completion = await log.send(client, agent.conversation, self.tokens)
            if completion is None:
                return
            completions.append(completion)
            agent.turn(self.tokens, words)

    async def _words(self, client: Client, log: RequestLog, prompts: Prompts) -> tuple[int, int] | None:
        """Return the words of the system prompt and of a tool's result that give the wanted sizes.

        Return None if a request failed or there is no room for a word, which ``log`` then says.
        """

        def first(words: int) -> Conversation:
            return _Agent(prompts, prompts.text(words)).conversation

        def second(words: int) -> Conversation:
            agent = _Agent(prompts, "none")
            agent.turn(self.tokens, words)
            return agent.conversation

        prefix = await measure_size(client, log, first)
        both = await measure_size(client, log, second) if prefix else None
        if not prefix or not both:
            return None
        growth = Size(per_word=both.per_word, around=both.around - prefix.tokens(1))
        words = prefix.words(self.prefix_tokens), growth.words(self.growth_tokens)
        if min(words) >= 1:
            return words
        log.failures.append(
            f"no room: without words of their own, the prefix has {prefix.around:.0f} tokens "
            f"and a turn adds {growth.around:.0f}"
        )
        return None


class _Agent:
    """A conversation that grows."""

    def __init__(self, prompts: Prompts, system: str) -> None:
        self._prompts = prompts
        self._messages: list[dict[str, Any]] = [
            {"role": "system", "content": system},
            {"role": "user", "content": prompts.text(TASK_WORDS)},
        ]

    @property
    def conversation(self) -> Conversation:
        return Conversation(list(self._messages), TOOLS)

    def turn(self, answer_words: int, result_words: int) -> None:
        """Add an answer that calls a tool, and the tool's result."""
        number = len(self._messages)
        function = TOOLS[number // 2 % len(TOOLS)]["function"]
        arguments = ", ".join(f'"{key}": "{number}"' for key in function["parameters"]["required"])
        call = {"name": function["name"], "arguments": f"{{{arguments}}}"}
        answer = self._prompts.text(answer_words)
        self._messages += [
            {
                "role": "assistant",
                "content": answer,
                "tool_calls": [{"id": f"call_{number:05}", "type": "function", "function": call}],
            },
            {
                "role": "tool",
                "tool_call_id": f"call_{number:05}",
                "content": self._prompts.text(result_words),
            },
        ]


def _values(turns: list[list[Completion]], seconds: float) -> dict[str, float]:
    """Return the metrics of all agents' completions, by turn."""
    completions = [each for turn in turns for each in turn]
    if not completions:
        return {}
    sizes = [each.prompt_tokens for each in completions]
    values = {REQUEST_RATE.name: len(completions) / seconds}
    values[FIRST_TTFT.name] = 1000 * median(each.first_token for each in turns[0])
    values |= percentiles_ms((each.first_token for each in completions), TTFT_P50, TTFT_P95, 95)
    if paces := [each.per_token for each in completions if each.per_token is not None]:
        values[TPOT_P50.name] = 1000 * median(paces)
    if min(sizes):
        values |= {FIRST_PROMPT.name: min(sizes), LAST_PROMPT.name: max(sizes)}
    return values
