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
from fllm.pipeline.beam_search import BeamSearchParams, beam_search
from fllm.pipeline.best_of import best_of
from fllm.pipeline.merge_streams import merge_streams
from fllm.pipeline.output_constraint import OutputConstraint, whole_output, with_param
from fllm.pipeline.output_processor import OutputProcessor, SequenceOutput
from fllm.pipeline.request_tracker import RequestTracker
from fllm.tokenizer import Tokenizer
from fllm.values import EngineOutput, GenerateRequest, SamplingParams


class PipelineRequest(Struct, frozen=True, kw_only=True):
    """What an endpoint asks of the pipeline. Sequence ``i * n + j`` is answer ``j`` to prompt ``i``."""

    prompts: list[list[int]]
    """Token ids of each prompt."""
    sampling: SamplingParams
    n: int = 1
    best_of: int = 1
    """Without ``beam``: generate so many, keep the ``n`` likeliest. Nothing comes before all are done."""
    beam: BeamSearchParams | None = None
    """Search with so many beams and keep the ``n`` best. Nothing is emitted before the search is done."""
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    continues_prompt: bool = False
    """The answer goes on in the middle of a text, and does not begin one."""
    reasoning_parser: ParserFactory | None = None
    tool_parser: ParserFactory | None = None
    context: ParserContext = ParserContext()
    client: str = ""
    """Who asks."""
    output_constraint: OutputConstraint | None = None
    """Concerns what is left of an output without its reasoning. Not together with ``beam``."""

    @property
    def num_sequences(self) -> int:
        """How many the backend has of it at once."""
        each = self.beam.width if self.beam else max(self.n, self.best_of)
        return len(self.prompts) * each


class Pipeline:
    """A backend and a tokenizer, ready to answer requests."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer, eos_token_ids: tuple[int, ...] = ()) -> None:
        self._backend = backend
        self._tokenizer = tokenizer
        self._eos_token_ids = eos_token_ids

    def generate(
        self, request: PipelineRequest, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        """Answer a request: the outputs that come together, together; closing it aborts.

        Each sequence's last output ends with its only `Finished`.
        """
        return merge_streams([self._answer(request, i, tracker) for i in range(len(request.prompts))])

    def _answer(
        self, request: PipelineRequest, i: int, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        first = i * request.n
        if request.beam is not None:
            return self._beams(request, i, request.beam, tracker)
        if request.best_of <= request.n:
            return merge_streams(
                [self._sequence(request, i, j, first + j, tracker) for j in range(request.n)]
            )
        scored = _with_logprobs(request)
        candidates = [self._sequence(scored, i, j, first + j, tracker) for j in range(request.best_of)]
        return best_of(
            merge_streams(candidates), request.n, first, keep_logprobs=request.sampling.logprobs is not None
        )

    def _sequence(
        self, request: PipelineRequest, i: int, j: int, index: int, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        prompt = self._prompt(request, i, j, tracker)
        reasoning = request.reasoning_parser and request.reasoning_parser(request.context)
        processor = self._chain(request, i, index, reasoning)
        if request.output_constraint is None:
            return _outputs(processor, index, self._backend.generate(prompt), tracker)
        prompt = msgspec.structs.replace(
            prompt, constraint=whole_output(request.output_constraint, reasoning)
        )
        return _outputs(
            processor, index, with_param(request.output_constraint, self._backend.generate(prompt)), tracker
        )

    async def _beams(
        self, request: PipelineRequest, i: int, beam: BeamSearchParams, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        prompt = self._prompt(request, i, 0, tracker)
        found = await beam_search(self._backend, prompt, beam, self._eos_token_ids)
        for index, hypothesis in enumerate(found[: request.n], start=i * request.n):
            step = hypothesis.step(with_logprobs=request.sampling.logprobs is not None)
            processor = self._chain(
                request, i, index, request.reasoning_parser and request.reasoning_parser(request.context)
            )
            async for outputs in _outputs(processor, index, _once(step), tracker):
                yield outputs

    def _chain(
        self, request: PipelineRequest, i: int, index: int, reasoning: Parser | None
    ) -> OutputProcessor:
        return OutputProcessor(
            index=index,
            tokenizer=self._tokenizer,
            sampling=request.sampling,
            prompt_tokens=len(request.prompts[i]),
            context=request.prompts[i] if request.continues_prompt else (),
            stop=request.stop,
            include_stop=request.include_stop,
            skip_special_tokens=request.skip_special_tokens,
            reasoning_parser=reasoning,
            tool_parser=request.tool_parser and request.tool_parser(request.context),
        )

    def _prompt(self, request: PipelineRequest, i: int, j: int, tracker: RequestTracker) -> GenerateRequest:
        sampling = request.sampling
        if j and sampling.seed is not None:
            sampling = msgspec.structs.replace(sampling, seed=sampling.seed + j)
        group = f"{tracker.request_id}/{tracker.key}/{i}"
        return GenerateRequest(
            request_id=f"{group}/{j}",
            token_ids=request.prompts[i],
            sampling=sampling,
            group=group,
            client=request.client,
        )


async def _outputs(
    processor: OutputProcessor, index: int, steps: AsyncGenerator[EngineOutput], tracker: RequestTracker
) -> AsyncGenerator[list[SequenceOutput]]:
    try:
        async with aclosing(steps):
            async for step in steps:
                output = processor.feed(step)
                tracker.step(index, len(output.tokens), step.queue_time, step.cached_tokens)
                if processor.finished:
                    tracker.end(index, processor.reason)
                yield [output]
                if processor.finished:
                    return
    except (GeneratorExit, asyncio.CancelledError):
        tracker.end(index, "abort")
        raise
    except Exception:
        tracker.end(index, "error")
        raise


def _with_logprobs(request: PipelineRequest) -> PipelineRequest:
    if request.sampling.logprobs is not None:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, logprobs=0))


async def _once(step: EngineOutput) -> AsyncGenerator[EngineOutput]:
    yield step
