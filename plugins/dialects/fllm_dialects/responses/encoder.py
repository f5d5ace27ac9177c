"""Encode the outputs of one generation as the events of a response."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from fllm import (
    ErrorInfo,
    Finished,
    PluginError,
    Reasoning,
    ResponseEncoder,
    Text,
    ToolArguments,
    ToolStart,
    Usage,
)
from fllm.concurrency.turn_executor import Pieces
from fllm.pipeline.output_processor import SequenceOutput
from fllm_dialects.responses.ids import new_id
from fllm_dialects.responses.logprobs import TextLogprobs
from fllm_dialects.responses.open_items import (
    OpenCustomCall,
    OpenFunctionCall,
    OpenItem,
    OpenMessage,
    OpenReasoning,
    Place,
)
from fllm_dialects.responses.protocol.events import (
    ErrorEvent,
    ResponseEvent,
    ResponseEventType,
    StreamEvent,
)
from fllm_dialects.responses.protocol.items import ItemStatus, Logprob, OutputItem
from fllm_dialects.responses.protocol.responses import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    ResponseError,
    ResponseUsage,
)
from fllm_dialects.responses.tools import CalledTool


class ResponsesEncoder(ResponseEncoder[StreamEvent]):
    """Encodes one response. One item is open at a time; another kind of event ends it."""

    def __init__(
        self,
        response: Response,
        called: Mapping[str, CalledTool],
        *,
        logprobs: TextLogprobs | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.response = response
        """The response as far as it is; after `finish`, `error` and `cancel`, the whole response."""
        self.begun = False
        """Whether events with the id of the response were emitted."""
        self._called = called
        self._logprobs = logprobs
        self._clock = clock
        self._numbers = itertools.count()
        self._items: list[OutputItem] = []
        self._open: OpenItem | None = None
        self._open_call = -1
        """Index of the open call among the calls."""
        self._finished: Finished | None = None
        self._usage: Usage | None = None

    def logprob_tokens(self, output: SequenceOutput) -> int:
        """Return the number of tokens whose log-probabilities `feed` would put into events."""
        return 0 if self._logprobs is None else self._logprobs.pending(output)

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:
        """Convert the log-probabilities of an output in pieces."""
        if self._logprobs is not None:
            yield from self._logprobs.convert(output)

    def queue(self) -> list[StreamEvent]:
        """Return the events that tell that the response exists, but waits. `start` follows."""
        self.begun = True
        self.response = replace(self.response, status="queued")
        return [self._response_event("response.created"), self._response_event("response.queued")]

    def start(self) -> list[StreamEvent]:
        """Return the events that tell that the response exists and is in progress."""
        created = [] if self.begun else [self._response_event("response.created")]
        self.begun = True
        self.response = replace(self.response, status="in_progress")
        return [*created, self._response_event("response.in_progress")]

    def feed(self, output: SequenceOutput) -> list[StreamEvent]:
        """Return the events for an output."""
        self._usage = output.usage
        if self._logprobs is not None:
            self._logprobs.add(output)
        events: list[StreamEvent] = []
        for event in output.events:
            match event:
                case Text(text=text):
                    events += self._add_text(text)
                case Reasoning(text=text):
                    events += self._add_reasoning(text)
                case ToolStart():
                    events += self._begin_call(event)
                case ToolArguments(index=index, text=text):
                    events += self._add_arguments(index, text)
                case Finished(reason=reason):
                    self._finished, self._usage = event, event.usage
                    complete = reason in ("stop", "tool_calls")
                    events += self._end_item("completed" if complete else "incomplete", last=True)
        return events

    def finish(self) -> list[StreamEvent]:
        """Return the last event, with the whole response."""
        reason = self._finished.reason if self._finished is not None else "abort"
        if reason == "abort":
            return [self._fail(ResponseError("server_error", "the generation was aborted"))]
        response = replace(self.response, output=self._items, usage=self._total_usage())
        if reason == "length":
            details = IncompleteDetails("max_output_tokens")
            self.response = replace(response, status="incomplete", incomplete_details=details)
            return [self._response_event("response.incomplete")]
        self.response = replace(response, status="completed", completed_at=int(self._clock()))
        return [self._response_event("response.completed")]

    def fold(self, chunks: Sequence[StreamEvent]) -> Response:
        """Return the response of the last event."""
        last = chunks[-1]
        assert isinstance(last, ResponseEvent), "`finish` returns one"
        return last.response

    def error(self, error: ErrorInfo) -> list[StreamEvent]:
        """Return the events of a failure: the error, and the response as far as it is."""
        event = ErrorEvent(
            sequence_number=next(self._numbers), code=error.code, message=error.message, param=error.param
        )
        code = "rate_limit_exceeded" if "rate_limit" in f"{error.type} {error.code}" else "server_error"
        return [event, self._fail(ResponseError(code, error.message))]

    def cancel(self) -> list[StreamEvent]:
        """Return the last event of a response that nobody waits for any more: OpenAI has none of its own."""
        self.response = replace(self._partial(), status="cancelled")
        return [self._response_event("response.incomplete")]

    def _fail(self, error: ResponseError) -> ResponseEvent:
        self.response = replace(self._partial(), status="failed", error=error, completed_at=None)
        return self._response_event("response.failed")

    def _partial(self) -> Response:
        items = self._items if self._open is None else [*self._items, self._open.item("incomplete")]
        return replace(self.response, output=items, usage=self._total_usage())

    def _response_event(self, kind: ResponseEventType) -> ResponseEvent:
        return ResponseEvent(type=kind, sequence_number=next(self._numbers), response=self.response)

    def _add_text(self, text: str) -> list[StreamEvent]:
        if isinstance(self._open, OpenMessage):
            return self._open.add(text, self._take_logprobs(text))
        ended = self._end_item("completed")
        message = OpenMessage(self._next_place())
        return [*ended, *self._begin(message), *message.add(text, self._take_logprobs(text))]

    def _add_reasoning(self, text: str) -> list[StreamEvent]:
        if isinstance(self._open, OpenReasoning):
            self._pass_over(text)
            return self._open.add(text)
        ended = self._end_item("completed")
        reasoning = OpenReasoning(self._next_place())
        begun = self._begin(reasoning)
        self._pass_over(text)
        return [*ended, *begun, *reasoning.add(text)]

    def _begin_call(self, start: ToolStart) -> list[StreamEvent]:
        ended = self._end_item("completed")
        tool = self._called.get(start.name) or CalledTool("function", start.name)
        new_call = OpenCustomCall if tool.kind == "custom" else OpenFunctionCall
        call = new_call(self._next_place(), start.id or new_id("call_"), tool)
        self._open_call = start.index
        return [*ended, *self._begin(call)]

    def _add_arguments(self, index: int, text: str) -> list[StreamEvent]:
        if index != self._open_call or not isinstance(self._open, OpenFunctionCall | OpenCustomCall):
            raise PluginError("a tool-call parser returned arguments of a call after another item had begun")
        self._pass_over(text)
        return self._open.add(text)

    def _begin(self, item: OpenItem) -> list[StreamEvent]:
        self._open = item
        if self._logprobs is not None:
            self._logprobs.begin()
        return item.begin()

    def _end_item(self, status: ItemStatus, *, last: bool = False) -> list[StreamEvent]:
        item, self._open = self._open, None
        if item is None:
            return []
        if isinstance(item, OpenMessage) and self._logprobs is not None:
            item.add_logprobs(self._logprobs.end_message(last=last))
        events = item.end(status)
        self._items.append(item.item(status))
        return events

    def _take_logprobs(self, text: str) -> list[Logprob]:
        return [] if self._logprobs is None else self._logprobs.take(text)

    def _pass_over(self, text: str) -> None:
        if self._logprobs is not None:
            self._logprobs.pass_over(text)

    def _next_place(self) -> Place:
        return Place(len(self._items), self._numbers)

    def _total_usage(self) -> ResponseUsage | None:
        usage = self._usage
        if usage is None:
            return None
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(usage.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(usage.reasoning_tokens),
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )
