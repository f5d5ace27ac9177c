"""A request that was read, and is ready to generate."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

from msgspec.structs import replace

from fllm.interfaces import LoadedToolParser, RequestRecord
from fllm.pipeline.final_events import FinalEvents
from fllm.pipeline.output_processor import SequenceOutput
from fllm.pipeline.pipeline import PipelineRequest
from fllm_api.app_state import AppState
from fllm_api.encoding.completions import Echo
from fllm_api.encoding.encoder import new_id
from fllm_api.intake.chat import PreparedChat
from fllm_api.intake.completions import PreparedCompletion
from fllm_api.intake.prefix_cache import separate_clients
from fllm_api.intake.sampling import check_sequences
from fllm_api.request_context import RequestContext


class ServedGeneration:
    """The `fllm.Generation` of a chat or a completion."""

    def __init__(
        self, prepared: PreparedChat | PreparedCompletion, context: RequestContext, state: AppState
    ) -> None:
        self.prepared = prepared
        self.request: PipelineRequest = prepared.request
        self.model = state.model_name(self.request.adapter)
        self.created = int(time.time())
        self._context = context
        self._state = state

    @property
    def record(self) -> RequestRecord:
        """Times and counts of the HTTP request."""
        return self._context.tracker

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of all prompts."""
        return sum(map(len, self.request.prompts))

    @property
    def includes_reasoning(self) -> bool:
        """Whether the outputs have reasoning."""
        return isinstance(self.prepared, PreparedChat) and self.prepared.includes_reasoning

    @property
    def role(self) -> str:
        """Role of the message that is generated."""
        return self.prepared.role if isinstance(self.prepared, PreparedChat) else "assistant"

    @property
    def echo(self) -> str:
        """Text that the response begins with."""
        return self.prepared.echo if isinstance(self.prepared, PreparedChat) else ""

    @property
    def echoes(self) -> list[Echo]:
        """The prompts that the choices of a completion begin with."""
        return self.prepared.echoes if isinstance(self.prepared, PreparedCompletion) else []

    def outputs(self, *, streamed: bool = False) -> AsyncGenerator[list[SequenceOutput]]:
        """Reserve capacity and return the outputs, which are generated as they are read.

        Raise the errors of `AdmissionSlot.reserve`, and `RequestError` if the limit of the client is below
        the number of sequences.
        """
        context, request = self._context, self.request
        if not hasattr(context, "slot"):
            raise RuntimeError("a route that generates needs opt=fllm.USES_ENGINE")
        most = context.slot.max_sequences
        check_sequences(len(request.prompts), request.n, request.best_of, request.beam, most)
        context.slot.reserve(request.num_sequences, self.prompt_tokens)
        request = replace(request, client=context.client, priority=request.priority + context.priority)
        context.tracker.submit(
            prompt_tokens=self.prompt_tokens,
            max_tokens=request.sampling.max_tokens,
            n=request.n,
            streamed=streamed,
            adapter=request.adapter.name if request.adapter else "",
        )
        outputs = self._state.pipeline.generate(separate_clients(request, self._state), context.tracker)
        if self._state.recorder is not None:
            outputs = self._state.recorder.watch(outputs, request, self.model)
        if not isinstance(self.prepared, PreparedChat) or not self._has_parser:
            return outputs
        return _final(outputs, self._final_events(self.prepared))

    @property
    def _has_parser(self) -> bool:
        """Return whether there may be events other than text."""
        return self.request.tool_parser is not None or self.request.reasoning_parser is not None

    def _final_events(self, prepared: PreparedChat) -> FinalEvents:
        return FinalEvents(
            _call_id_factory(prepared, self.request.tool_parser),
            parallel_tool_calls=prepared.parallel_tool_calls,
            reasoning=prepared.includes_reasoning,
        )


def _call_id_factory(prepared: PreparedChat, parser: LoadedToolParser | None) -> Callable[[], str]:
    """Return what makes ids of calls: as the parser or the chat template demands, or random ones."""
    return (parser and parser.new_call_id) or prepared.new_call_id or partial(new_id, "call_")


async def _final(
    outputs: AsyncGenerator[list[SequenceOutput]], events: FinalEvents
) -> AsyncGenerator[list[SequenceOutput]]:
    async with aclosing(outputs):
        async for batch in outputs:
            yield list(map(events.complete, batch))
