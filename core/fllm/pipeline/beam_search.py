"""Beam search over any backend, through its door: one more token for all beams at once, again and again.

The search is that of Hugging Face's ``generate``. A hypothesis is worth the sum of its tokens'
log-probabilities over its length to the power of the length penalty. In each round the continuations of all
live beams compete: those of the ``width`` best that end are finished, and the ``width`` best that don't end
live on. Log-probabilities are the model's own, so temperature, penalties and biases have no part in it. From
round to round a prompt grows by one token, so the backend's prefix cache spares it nearly all of the work.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from fllm.errors import BackendError
from fllm.interfaces import Backend
from fllm.values import EngineOutput, GenerateRequest, SamplingParams, TokenLogprob, stop_tokens


class BeamSearchParams(Struct, frozen=True, kw_only=True):
    """How to search."""

    width: int
    length_penalty: float = 1.0
    """Above 0 favours long answers, since log-probabilities are negative; below 0 short ones."""
    early_stopping: bool | Literal["never"] = False
    """Once ``width`` hypotheses are finished: True stops; False stops if no live beam is worth more than the
    worst of them as it stands; ``"never"`` stops if none can ever be."""


class Hypothesis(Struct, frozen=True, kw_only=True):
    """An answer, or the beginning of one."""

    tokens: tuple[TokenLogprob, ...] = ()
    """With as many alternatives to each as the request wants to see."""
    logprob: float = 0.0
    """The sum over its tokens."""
    stop_token: int | None = None
    """The stop token that ended it; ``None`` while it lives, or if its length ended it."""
    opening: EngineOutput = EngineOutput()
    """The backend's first step, for what that tells of the prompt."""

    @property
    def token_ids(self) -> list[int]:
        """The answer."""
        return [token.token_id for token in self.tokens]

    def worth(self, length: int, beam: BeamSearchParams) -> float:
        """Its score if it had so many tokens, at the same sum."""
        return self.logprob / math.pow(max(1, length), beam.length_penalty)

    def step(self, *, with_logprobs: bool) -> EngineOutput:
        """The whole answer, as a backend would give it in one step."""
        return replace(
            self.opening,
            token_ids=self.token_ids,
            logprobs=list(self.tokens) if with_logprobs else None,
            finish_reason="length" if self.stop_token is None else "stop",
            stop_token=self.stop_token,
        )


async def beam_search(
    backend: Backend, prompt: GenerateRequest, beam: BeamSearchParams, eos_token_ids: Iterable[int]
) -> list[Hypothesis]:
    """The best ``beam.width`` answers, best first; fewer only if the model has not so many."""
    search = _Search(backend, prompt, beam, stop_tokens(prompt.sampling, eos_token_ids))
    for length in range(1, prompt.sampling.max_tokens + 1):
        search.select(await search.continuations(length))
        if length < prompt.sampling.max_tokens and search.settled(length):
            return search.finished
    return search.best([*search.finished, *search.live])


class _Search:
    def __init__(
        self, backend: Backend, prompt: GenerateRequest, beam: BeamSearchParams, stops: frozenset[int]
    ) -> None:
        self.live = [Hypothesis()]
        self.finished: list[Hypothesis] = []
        self._backend = backend
        self._prompt = prompt
        self._beam = beam
        self._stops = stops

    async def continuations(self, length: int) -> list[Hypothesis]:
        """What the live beams may become when they have so many tokens, likeliest first."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._next(index)) for index in range(len(self.live))]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        steps = [task.result() for task in tasks]
        banned = self._stops if length <= self._prompt.sampling.min_tokens else frozenset[int]()
        pairs = zip(self.live, steps, strict=True)
        found = [child for parent, step in pairs for child in self._children(parent, step, banned)]
        return sorted(found, key=lambda child: child.logprob, reverse=True)

    def select(self, candidates: list[Hypothesis]) -> None:
        """Part the finished from the living, and keep the best of both."""
        ended = [each for each in candidates[: self._beam.width] if each.stop_token is not None]
        self.finished = self.best(self.finished + ended)
        self.live = [each for each in candidates if each.stop_token is None][: self._beam.width]

    def settled(self, length: int) -> bool:
        """No live beam is worth going on with."""
        if not self.live:
            return True
        if len(self.finished) < self._beam.width:
            return False
        if self._beam.early_stopping is True:
            return True
        if self._beam.early_stopping == "never" and self._beam.length_penalty > 0:
            length = self._prompt.sampling.max_tokens
        return self.live[0].worth(length, self._beam) <= self._worth(self.finished[-1])

    def best(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        """The ``width`` best, best first."""
        return sorted(hypotheses, key=self._worth, reverse=True)[: self._beam.width]

    def _worth(self, hypothesis: Hypothesis) -> float:
        return hypothesis.worth(len(hypothesis.tokens), self._beam)

    def _children(
        self, parent: Hypothesis, step: EngineOutput, banned: frozenset[int]
    ) -> Iterator[Hypothesis]:
        [sampled] = step.logprobs or []
        shown = sampled.top[: self._prompt.sampling.logprobs or 0]
        for token, logprob in sampled.top:
            if token not in banned:
                yield Hypothesis(
                    tokens=(*parent.tokens, TokenLogprob(token, logprob, shown)),
                    logprob=parent.logprob + logprob,
                    stop_token=token if token in self._stops else None,
                    opening=parent.opening if parent.tokens else step,
                )

    async def _next(self, index: int) -> EngineOutput:
        """Ask for the likeliest tokens after a live beam."""
        beginning = self.live[index].token_ids
        prompt = GenerateRequest(
            f"{self._prompt.request_id}/{len(beginning)}/{index}",
            [*self._prompt.token_ids, *beginning],
            self._sampling(first=not beginning),
            self._prompt.group or self._prompt.request_id,
            client=self._prompt.client,
        )
        async with aclosing(self._backend.generate(prompt)) as steps:
            async for step in steps:
                if step.logprobs:
                    return step
        raise BackendError("the backend gave no log-probabilities, and beam search lives on them")

    def _sampling(self, *, first: bool) -> SamplingParams:
        """One token, and so many of the likeliest that ``width`` of them are no stop tokens."""
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            ignore_eos=True,
            logprobs=self._beam.width + len(self._stops),
            prompt_logprobs=self._prompt.sampling.prompt_logprobs if first else None,
        )
