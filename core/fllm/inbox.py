"""Where the steps of one sequence wait for whoever reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fllm.values import Step


class Inbox:
    """The steps of one sequence, from the engine to its only reader: those that wait together leave as one.

    So a reader that is slower than the engine does the work of a write once for all tokens that are there,
    and one that is faster gets each token at once. All methods belong to one event loop.
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._failure: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, step: Step) -> None:
        """Add a step."""
        self._steps.append(step)
        self._filled.set()

    def fail(self, failure: Exception) -> None:
        """There will be no more steps: `get` raises this once those before it are read."""
        self._failure = failure
        self._filled.set()

    async def get(self) -> Step:
        """Wait until there is something, and take all steps that are there, joined."""
        await self._filled.wait()
        steps, self._steps = self._steps, []
        if self._failure is None:
            self._filled.clear()
        elif not steps:
            raise self._failure
        return joined(steps)


def joined(steps: Sequence[Step]) -> Step:
    """One step that says what these say one after the other; there must be at least one."""
    first, last = steps[0], steps[-1]
    if first is last:
        return first
    logprobs = [logprob for step in steps for logprob in step.logprobs or ()]
    return Step(
        token_ids=[token_id for step in steps for token_id in step.token_ids],
        logprobs=logprobs or None,
        finish=last.finish,
        stop_token=last.stop_token,
        cached_tokens=first.cached_tokens,
        queued=first.queued,
        prompt_logprobs=first.prompt_logprobs,
    )
