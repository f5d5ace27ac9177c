"""Send the requests of one measurement and record their results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from msgspec import Struct

from fllm_bench.client import Client, Prompt, RequestFailed
from fllm_bench.response_reader import Completion


class RequestLog(Struct):
    """The results of the requests of one measurement."""

    completions: list[Completion] = []
    failures: list[str] = []
    short: int = 0
    """Number of completions with fewer tokens than requested."""

    async def send(
        self, client: Client, prompt: Prompt, tokens: int, *, stream: bool = True
    ) -> Completion | None:
        """Send one request and record its result; return None if it failed."""
        try:
            completion = await client.complete(prompt, tokens, stream=stream)
        except RequestFailed as failure:
            self.failures.append(str(failure))
            return None
        self.completions.append(completion)
        self.short += completion.output_tokens < tokens
        return completion

    async def send_all(self, client: Client, prompts: Iterable[str], tokens: int, concurrency: int) -> float:
        """Send a request per prompt, ``concurrency`` at a time; return the elapsed seconds."""
        waiting = iter(prompts)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(self._send_waiting(client, waiting, tokens))
        return time.perf_counter() - started

    async def _send_waiting(self, client: Client, waiting: Iterator[str], tokens: int) -> None:
        for prompt in waiting:
            await self.send(client, prompt, tokens)
