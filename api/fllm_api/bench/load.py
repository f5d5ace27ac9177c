"""Requests, so many at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fllm_api.bench.answer import Answer
from fllm_api.bench.client import Client, Failure


class Load(Struct):
    """What became of the requests of one measurement."""

    answers: list[Answer] = []
    failures: list[str] = []
    short: int = 0
    """Answers of fewer tokens than were asked for."""

    async def ask(self, client: Client, prompt: str, tokens: int, *, stream: bool = True) -> Answer | None:
        """Send one request, and keep what becomes of it."""
        try:
            answer = await client.ask(prompt, tokens, stream=stream)
        except Failure as failure:
            self.failures.append(str(failure))
            return None
        self.answers.append(answer)
        self.short += answer.output_tokens < tokens
        return answer

    async def ask_all(self, client: Client, prompts: Iterable[str], tokens: int, concurrency: int) -> float:
        """Send a request for each prompt, ``concurrency`` at any time; gives the seconds that all took."""
        waiting = iter(prompts)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as streams:
            for _ in range(concurrency):
                streams.create_task(self._stream(client, waiting, tokens))
        return time.perf_counter() - began

    async def _stream(self, client: Client, waiting: Iterator[str], tokens: int) -> None:
        for prompt in waiting:
            await self.ask(client, prompt, tokens)
