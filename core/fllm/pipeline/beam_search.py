"""Beam search over any backend, through `Backend.generate`: one more token for all beams in each round.

The algorithm is that of Hugging Face's ``generate``. A hypothesis' score is the sum of its tokens'
log-probabilities divided by its length to the power of the length penalty. In each round the continuations of
all live beams compete: those of the ``width`` best that end with a stop token are finished, and the ``width``
best of the others stay live. Log-probabilities are the model's own, so temperature, penalties and biases have
no effect. A prompt grows by one token per round, so the backend's prefix cache saves nearly all of the work.
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
    """Parameters of a beam search."""

    width: int
    """Number of beams."""
    length_penalty: float = 1.0
    """Values above 0 favour long outputs, since log-probabilities are negative; values below 0 short ones."""
    early_stopping: bool | Literal["never"] = False
    """When to stop once ``width`` hypotheses are finished. ``True``: at once. ``False``: if no live beam's
    current score exceeds the worst finished one. ``"never"``: if no live beam can ever exceed it."""


class Hypothesis(Struct, frozen=True, kw_only=True):
    """A finished output or the beginning of one."""

    tokens: tuple[TokenLogprob, ...] = ()
    """Generated tokens, each with as many alternatives as the request's ``logprobs``."""
    logprob: float = 0.0
    """Sum of the tokens' log-probabilities."""
    stop_token: int | None = None
    """Stop token that ended it; ``None`` while it is live, or if ``max_tokens`` ended it."""
    first_output: EngineOutput = EngineOutput()
    """The backend's first output, for its facts about the prompt."""

    @property
    def token_ids(self) -> list[int]:
        """Ids of the generated tokens."""
        return [token.token_id for token in self.tokens]

    def score(self, length: int, params: BeamSearchParams) -> float:
        """Return its score as if it had ``length`` tokens, with the same sum of log-probabilities."""
        return self.logprob / math.pow(max(1, length), params.length_penalty)

    def to_output(self, *, with_logprobs: bool) -> EngineOutput:
        """Return the whole sequence as one output of a backend."""
        return replace(
            self.first_output,
            token_ids=self.token_ids,
            logprobs=list(self.tokens) if with_logprobs else None,
            finish_reason="length" if self.stop_token is None else "stop",
            stop_token=self.stop_token,
        )


async def beam_search(
    backend: Backend, request: GenerateRequest, params: BeamSearchParams, eos_token_ids: Iterable[int]
) -> list[Hypothesis]:
    """Return the ``params.width`` best hypotheses, best first; fewer only if the model has no more.

    Raise `BackendError` if the backend returns no log-probabilities.
    """
    search = _Search(backend, request, params, stop_tokens(request.sampling, eos_token_ids))
    for length in range(1, request.sampling.max_tokens + 1):
        search.select(await search.expand(length))
        if length < request.sampling.max_tokens and search.is_done(length):
            return search.finished
    return search.best([*search.finished, *search.live])


class _Search:
    def __init__(
        self,
        backend: Backend,
        request: GenerateRequest,
        params: BeamSearchParams,
        stop_token_ids: frozenset[int],
    ) -> None:
        self.live = [Hypothesis()]
        self.finished: list[Hypothesis] = []
        self._backend = backend
        self._request = request
        self._params = params
        self._stop_token_ids = stop_token_ids

    async def expand(self, length: int) -> list[Hypothesis]:
        """Return all continuations of the live beams, ``length`` tokens long, most likely first."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._next_token(beam)) for beam in range(len(self.live))]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        outputs = [task.result() for task in tasks]
        banned = self._stop_token_ids if length <= self._request.sampling.min_tokens else frozenset[int]()
        pairs = zip(self.live, outputs, strict=True)
        children = [child for parent, output in pairs for child in self._children(parent, output, banned)]
        return sorted(children, key=lambda child: child.logprob, reverse=True)

    def select(self, candidates: list[Hypothesis]) -> None:
        """Split the candidates into finished and live ones, and keep the best of both."""
        ended = [each for each in candidates[: self._params.width] if each.stop_token is not None]
        self.finished = self.best(self.finished + ended)
        self.live = [each for each in candidates if each.stop_token is None][: self._params.width]

    def is_done(self, length: int) -> bool:
        """Return whether no live beam needs to be continued."""
        if not self.live:
            return True
        if len(self.finished) < self._params.width:
            return False
        if self._params.early_stopping is True:
            return True
        if self._params.early_stopping == "never" and self._params.length_penalty > 0:
            length = self._request.sampling.max_tokens
        return self.live[0].score(length, self._params) <= self._score(self.finished[-1])

    def best(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        """Return the ``width`` best, best first."""
        return sorted(hypotheses, key=self._score, reverse=True)[: self._params.width]

    def _score(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score(len(hypothesis.tokens), self._params)

    def _children(
        self, parent: Hypothesis, output: EngineOutput, banned: frozenset[int]
    ) -> Iterator[Hypothesis]:
        [sampled] = output.logprobs or []
        reported = sampled.top[: self._request.sampling.logprobs or 0]
        for token, logprob in sampled.top:
            if token not in banned:
                yield Hypothesis(
                    tokens=(*parent.tokens, TokenLogprob(token, logprob, reported)),
                    logprob=parent.logprob + logprob,
                    stop_token=token if token in self._stop_token_ids else None,
                    first_output=parent.first_output if parent.tokens else output,
                )

    async def _next_token(self, beam: int) -> EngineOutput:
        """Request the most likely next tokens of a live beam."""
        generated = self.live[beam].token_ids
        request = replace(
            self._request,
            request_id=f"{self._request.request_id}/{len(generated)}/{beam}",
            token_ids=[*self._request.token_ids, *generated],
            sampling=self._sampling(first=not generated),
            group=self._request.group or self._request.request_id,
        )
        async with aclosing(self._backend.generate(request)) as outputs:
            async for output in outputs:
                if output.logprobs:
                    return output
        raise BackendError("the backend returned no log-probabilities, which beam search requires")

    def _sampling(self, *, first: bool) -> SamplingParams:
        """Request one token and enough alternatives that ``width`` of them are not stop tokens."""
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            ignore_eos=True,
            logprobs=self._params.width + len(self._stop_token_ids),
            prompt_logprobs=self._request.sampling.prompt_logprobs if first else None,
        )
