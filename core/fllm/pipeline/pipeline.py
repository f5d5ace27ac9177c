"""The one path from a request to events: streamed or not, chat or completion, one sequence or many.

::

    GenerateRequest ─ Backend.generate ─▶ EngineOutput* ─ OutputProcessor ─▶ SequenceOutput*
                    ─ merge_streams ─▶ list[SequenceOutput]*

    OutputProcessor: Detokenizer ─▶ StopStrings ─▶ reasoning parser ─▶ tool-call parser
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from fllm.config import LoraAdapter
from fllm.constraints import Constraint
from fllm.interfaces import Backend, LoadedParser, LoadedToolParser, Parser, ParserContext
from fllm.pipeline.beam_search import BeamSearchParams, beam_search
from fllm.pipeline.best_of import best_of
from fllm.pipeline.contained_parser import ContainedParser
from fllm.pipeline.merge_streams import merge_streams
from fllm.pipeline.output_constraint import OutputConstraint, constrained_outputs
from fllm.pipeline.output_processor import OutputProcessor, SequenceOutput
from fllm.pipeline.reasoning_limit import reasoning_limit
from fllm.pipeline.request_tracker import RequestTracker
from fllm.tokenizer import Tokenizer
from fllm.values import EngineOutput, GenerateRequest, SamplingParams


class PipelineRequest(Struct, frozen=True, kw_only=True):
    """An endpoint's request to the pipeline. Sequence ``i * n + j`` is output ``j`` for prompt ``i``."""

    prompts: list[list[int]]
    """Token ids of each prompt."""
    sampling: SamplingParams
    n: int = 1
    """Outputs per prompt."""
    best_of: int = 1
    """Without ``beam``: candidates to generate per prompt; the ``n`` most likely are returned. If it exceeds
    ``n``, nothing is emitted until all candidates are complete."""
    beam: BeamSearchParams | None = None
    """Generate by beam search and return the ``n`` best. Nothing is emitted until the search is complete."""
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    """Keep the stop string or stop token in the text."""
    skip_special_tokens: bool = True
    continues_prompt: bool = False
    """The output continues the prompt's text, rather than beginning a new one."""
    reasoning_parser: LoadedParser | None = None
    tool_parser: LoadedToolParser | None = None
    max_reasoning_tokens: int | None = None
    """Maximum number of reasoning tokens of each output. Not supported together with ``beam``."""
    calls_only: bool = False
    """`output_constraint` allows nothing but tool calls: what is left of one that is cut off is not text."""
    context: ParserContext = ParserContext()
    """Context for both parsers."""
    client: str = ""
    """Name of the client, by which a backend may schedule fairly."""
    priority: int = 0
    """Order of the client's own requests that wait: lower first."""
    cache_salt: str = ""
    """Only requests with the same salt share blocks of the prefix cache."""
    shared_tokens: tuple[int, ...] = ()
    """For each prompt, the number of first tokens that are shared whatever the salt. Empty: none."""
    images: tuple[str, ...] = ()
    """`PreparedImages.keys` of the images in the prompts."""
    adapter: LoraAdapter | None = None
    """The LoRA adapter that generates; ``None``: the model itself."""
    output_constraint: OutputConstraint | None = None
    """Constraint on each output's text after the reasoning. Not supported together with ``beam``."""

    @property
    def num_sequences(self) -> int:
        """Number of sequences that the backend runs at once for this request."""
        per_prompt = self.beam.width if self.beam else max(self.n, self.best_of)
        return len(self.prompts) * per_prompt

    @property
    def visible_tokens(self) -> frozenset[str]:
        """Special tokens that the parsers read."""
        parsers = (self.reasoning_parser, self.tool_parser)
        return frozenset(token for parser in parsers if parser for token in parser.visible_tokens)

    @property
    def parser_context(self) -> ParserContext:
        """The context that the parsers are made with."""
        return msgspec.structs.replace(self.context, constrained=self.output_constraint is not None)

    def make_parsers(self) -> tuple[Parser | None, Parser | None]:
        """Return a new reasoning parser and a new tool-call parser, for one sequence."""
        context = self.parser_context
        return (
            None if self.reasoning_parser is None else self.reasoning_parser(context),
            None if self.tool_parser is None else self.tool_parser(context),
        )


class Pipeline:
    """Generates outputs for requests with a backend and a tokenizer."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer, eos_token_ids: tuple[int, ...] = ()) -> None:
        self._backend = backend
        self._tokenizer = tokenizer
        self._eos_token_ids = eos_token_ids

    def generate(
        self, request: PipelineRequest, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        """Yield the outputs of all sequences; outputs that arrive together share one list.

        Each sequence's last output ends with its only `Finished`. Closing the generator aborts the request.
        """
        return merge_streams([self._run_prompt(request, i, tracker) for i in range(len(request.prompts))])

    def _run_prompt(
        self, request: PipelineRequest, i: int, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        first = i * request.n
        if request.beam is not None:
            generate_request = self._generate_request(request, i, 0, tracker)
            return self._run_beam_search(request, i, request.beam, generate_request, tracker)
        if request.best_of <= request.n:
            sequences = [self._run_sequence(request, i, j, first + j, tracker) for j in range(request.n)]
            return merge_streams(sequences)
        scored = _with_logprobs(request)
        candidates = [self._run_sequence(scored, i, j, first + j, tracker) for j in range(request.best_of)]
        keep_logprobs = request.sampling.logprobs is not None
        return best_of(merge_streams(candidates), request.n, first, keep_logprobs=keep_logprobs)

    def _run_sequence(
        self, request: PipelineRequest, i: int, j: int, index: int, tracker: RequestTracker
    ) -> AsyncGenerator[list[SequenceOutput]]:
        generate_request = self._generate_request(request, i, j, tracker)
        reasoning_parser, tool_parser = request.make_parsers()
        processor = self._make_processor(request, i, index, reasoning_parser, tool_parser)
        if request.max_reasoning_tokens is not None:
            limit = reasoning_limit(request.max_reasoning_tokens, reasoning_parser)
            sampling = msgspec.structs.replace(generate_request.sampling, reasoning_limit=limit)
            generate_request = msgspec.structs.replace(generate_request, sampling=sampling)
        if request.output_constraint is None:
            return _process(processor, index, self._backend.generate(generate_request), tracker)

        def generate(constraint: Constraint) -> AsyncGenerator[EngineOutput]:
            return self._backend.generate(msgspec.structs.replace(generate_request, constraint=constraint))

        outputs = constrained_outputs(request.output_constraint, reasoning_parser, generate)
        return _process(processor, index, outputs, tracker)

    async def _run_beam_search(
        self,
        request: PipelineRequest,
        i: int,
        params: BeamSearchParams,
        generate_request: GenerateRequest,
        tracker: RequestTracker,
    ) -> AsyncGenerator[list[SequenceOutput]]:
        hypotheses = await beam_search(self._backend, generate_request, params, self._eos_token_ids)
        for index, hypothesis in enumerate(hypotheses[: request.n], start=i * request.n):
            output = hypothesis.to_output(with_logprobs=request.sampling.logprobs is not None)
            processor = self._make_processor(request, i, index, *request.make_parsers())
            async for outputs in _process(processor, index, _once(output), tracker):
                yield outputs

    def _make_processor(
        self,
        request: PipelineRequest,
        i: int,
        index: int,
        reasoning_parser: Parser | None,
        tool_parser: Parser | None,
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
            visible_tokens=request.visible_tokens,
            reasoning_parser=_contain(reasoning_parser, request.reasoning_parser),
            tool_parser=_contain(tool_parser, request.tool_parser),
            calls_only=request.calls_only,
        )

    def _generate_request(
        self, request: PipelineRequest, i: int, j: int, tracker: RequestTracker
    ) -> GenerateRequest:
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
            priority=request.priority,
            cache_salt=request.cache_salt,
            shared_tokens=request.shared_tokens[i] if request.shared_tokens else 0,
            images=request.images,
            adapter=request.adapter.id if request.adapter else 0,
        )


def _contain(parser: Parser | None, loaded: LoadedParser | None) -> Parser | None:
    return None if parser is None or loaded is None else ContainedParser(parser, loaded)


async def _process(
    processor: OutputProcessor,
    index: int,
    engine_outputs: AsyncGenerator[EngineOutput],
    tracker: RequestTracker,
) -> AsyncGenerator[list[SequenceOutput]]:
    try:
        async with aclosing(engine_outputs):
            async for engine_output in engine_outputs:
                output = processor.feed(engine_output)
                if engine_output.replica:
                    tracker.record_replica(engine_output.replica)
                tracker.step(index, len(output.tokens), engine_output.queue_time, engine_output.cached_tokens)
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
    finally:
        processor.close()


def _with_logprobs(request: PipelineRequest) -> PipelineRequest:
    if request.sampling.logprobs is not None:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, logprobs=0))


async def _once(output: EngineOutput) -> AsyncGenerator[EngineOutput]:
    yield output
