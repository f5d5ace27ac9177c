"""The one path from a request to events: streamed or not, chat or completion, one sequence or many.

::

    Prompt ─ backend.generate ─▶ Step* ─ Chain ─▶ Output* ─ merge ─▶ list[Output]*

    Chain: Detokenizer ─▶ StopStrings ─▶ reasoning parser ─▶ tool-call parser
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from fllm.interfaces import Backend, Parser, ParserContext, ParserFactory
from fllm.pipeline.beam_search import Beam, beam_search
from fllm.pipeline.best_of import best_of
from fllm.pipeline.merge_streams import merge
from fllm.pipeline.output_constraint import Demand, blaming, whole_output
from fllm.pipeline.output_processor import Chain, Output
from fllm.pipeline.request_tracker import Trace
from fllm.tokenizer import Tokenizer
from fllm.values import Prompt, Sampling, Step


class Request(Struct, frozen=True, kw_only=True):
    """What an endpoint asks of the pipeline. Sequence ``i * n + j`` is answer ``j`` to prompt ``i``."""

    prompts: list[list[int]]
    """Token ids of each prompt."""
    sampling: Sampling
    n: int = 1
    best_of: int = 1
    """Without ``beam``: generate so many, keep the ``n`` likeliest. Nothing comes before all are done."""
    beam: Beam | None = None
    """Search with so many beams and keep the ``n`` best. Nothing is emitted before the search is done."""
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    continues: bool = False
    """The answer goes on in the middle of a text, and does not begin one."""
    reasoning: ParserFactory | None = None
    tools: ParserFactory | None = None
    context: ParserContext = ParserContext()
    client: str = ""
    """Who asks."""
    demand: Demand | None = None
    """Concerns what is left of an output without its reasoning. Not together with ``beam``."""

    @property
    def sequences(self) -> int:
        """How many the backend has of it at once."""
        each = self.beam.width if self.beam else max(self.n, self.best_of)
        return len(self.prompts) * each


class Pipeline:
    """A backend and a tokenizer, ready to answer requests."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer, eos_token_ids: tuple[int, ...] = ()) -> None:
        self._backend = backend
        self._tokenizer = tokenizer
        self._eos_token_ids = eos_token_ids

    def generate(self, request: Request, trace: Trace) -> AsyncGenerator[list[Output]]:
        """Answer a request: the outputs that come together, together; closing it aborts.

        Each sequence's last output ends with its only `Finished`.
        """
        return merge([self._answer(request, i, trace) for i in range(len(request.prompts))])

    def _answer(self, request: Request, i: int, trace: Trace) -> AsyncGenerator[list[Output]]:
        first = i * request.n
        if request.beam is not None:
            return self._beams(request, i, request.beam, trace)
        if request.best_of <= request.n:
            return merge([self._sequence(request, i, j, first + j, trace) for j in range(request.n)])
        scored = _with_logprobs(request)
        candidates = [self._sequence(scored, i, j, first + j, trace) for j in range(request.best_of)]
        return best_of(
            merge(candidates), request.n, first, keep_logprobs=request.sampling.logprobs is not None
        )

    def _sequence(
        self, request: Request, i: int, j: int, index: int, trace: Trace
    ) -> AsyncGenerator[list[Output]]:
        prompt = self._prompt(request, i, j, trace)
        reasoning = request.reasoning and request.reasoning(request.context)
        chain = self._chain(request, i, index, reasoning)
        if request.demand is None:
            return _outputs(chain, index, self._backend.generate(prompt), trace)
        prompt = msgspec.structs.replace(prompt, constraint=whole_output(request.demand, reasoning))
        return _outputs(chain, index, blaming(request.demand, self._backend.generate(prompt)), trace)

    async def _beams(
        self, request: Request, i: int, beam: Beam, trace: Trace
    ) -> AsyncGenerator[list[Output]]:
        prompt = self._prompt(request, i, 0, trace)
        found = await beam_search(self._backend, prompt, beam, self._eos_token_ids)
        for index, hypothesis in enumerate(found[: request.n], start=i * request.n):
            step = hypothesis.step(with_logprobs=request.sampling.logprobs is not None)
            chain = self._chain(request, i, index, request.reasoning and request.reasoning(request.context))
            async for outputs in _outputs(chain, index, _once(step), trace):
                yield outputs

    def _chain(self, request: Request, i: int, index: int, reasoning: Parser | None) -> Chain:
        return Chain(
            index=index,
            tokenizer=self._tokenizer,
            sampling=request.sampling,
            prompt_tokens=len(request.prompts[i]),
            context=request.prompts[i] if request.continues else (),
            stop=request.stop,
            include_stop=request.include_stop,
            skip_special_tokens=request.skip_special_tokens,
            reasoning=reasoning,
            tools=request.tools and request.tools(request.context),
        )

    def _prompt(self, request: Request, i: int, j: int, trace: Trace) -> Prompt:
        sampling = request.sampling
        if j and sampling.seed is not None:
            sampling = msgspec.structs.replace(sampling, seed=sampling.seed + j)
        group = f"{trace.request_id}/{trace.key}/{i}"
        return Prompt(
            request_id=f"{group}/{j}",
            token_ids=request.prompts[i],
            sampling=sampling,
            group=group,
            client=request.client,
        )


async def _outputs(
    chain: Chain, index: int, steps: AsyncGenerator[Step], trace: Trace
) -> AsyncGenerator[list[Output]]:
    try:
        async with aclosing(steps):
            async for step in steps:
                output = chain.feed(step)
                trace.step(index, len(output.tokens), step.queued, step.cached_tokens)
                if chain.finished:
                    trace.end(index, chain.reason)
                yield [output]
                if chain.finished:
                    return
    except (GeneratorExit, asyncio.CancelledError):
        trace.end(index, "abort")
        raise
    except Exception:
        trace.end(index, "error")
        raise


def _with_logprobs(request: Request) -> Request:
    if request.sampling.logprobs is not None:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, logprobs=0))


async def _once(step: Step) -> AsyncGenerator[Step]:
    yield step
