"""Outputs to chunks of `/v1/chat/completions`, and those to the whole answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import UNSET

from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm_api.encoding.encoder import ResponseHeader, new_id
from fllm_api.encoding.logprobs import TokenFormatter, chat_logprobs
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.protocol.chat import (
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    FunctionDelta,
    ResponseFunctionCall,
    ResponseMessage,
    ResponseToolCall,
    ToolCallDelta,
)


class ChatEncoder:
    """The stream of a chat: for each choice a role, then what is new, then one finish."""

    def __init__(
        self,
        head: ResponseHeader,
        tally: UsageAccumulator,
        *,
        role: str = "assistant",
        names: TokenFormatter | None = None,
        parallel_tool_calls: bool = True,
        named_call: bool = False,
        new_call_id: Callable[[], str] | None = None,
        echo: str = "",
    ) -> None:
        self._head = head
        self._tally = tally
        self._role = role
        self._names = names
        self._parallel = parallel_tool_calls
        self._named_call = named_call
        self._new_call_id = new_call_id or partial(new_id, "call_")
        self._call_ids: set[tuple[int, str]] = set()
        """The model's own, by choice."""
        self._echo = echo
        self._begun: set[int] = set()
        self._unreported: defaultdict[int, list[OutputToken]] = defaultdict(list)
        """Tokens whose text is still held back: their log-probabilities go with the next chunk."""

    def feed(self, output: SequenceOutput) -> list[ChatCompletionChunk]:
        """The role where a choice begins, and a chunk for each event."""
        self._tally.update(output)
        index = output.index
        if self._names is not None:
            self._unreported[index] += output.tokens
        chunks: list[ChatCompletionChunk] = []
        if index not in self._begun:
            self._begun.add(index)
            opening = ChunkChoice(index=index, delta=Delta(role=self._role, content=self._echo))
            chunks.append(self._chunk([opening]))
        chunks += [
            self._chunk([self._choice(index, event)]) for event in output.events if self._wanted(event)
        ]
        return chunks

    def finish(self) -> list[ChatCompletionChunk]:
        """The usage, where asked for."""
        usage = self._tally.final_usage()
        return [self._chunk([], last=True)] if usage else []

    def fold(self, chunks: Sequence[ChatCompletionChunk]) -> ChatCompletion:
        """The whole answer."""
        choices: defaultdict[int, list[ChunkChoice]] = defaultdict(list)
        for chunk in chunks:
            for choice in chunk.choices:
                choices[choice.index].append(choice)
        return ChatCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[_fold_choice(index, choices[index]) for index in sorted(choices)],
            usage=self._tally.total(),
        )

    def _chunk(self, choices: list[ChunkChoice], *, last: bool = False) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._head.id,
            object="chat.completion.chunk",
            created=self._head.created,
            model=self._head.model,
            choices=choices,
            usage=self._tally.final_usage() if last else self._tally.chunk_usage(),
        )

    def _wanted(self, event: Event) -> bool:
        return self._parallel or not isinstance(event, ToolStart | ToolArguments) or event.index == 0

    def _choice(self, index: int, event: Event) -> ChunkChoice:
        finished = event if isinstance(event, Finished) else None
        return ChunkChoice(
            index=index,
            delta=self._delta(index, event),
            logprobs=self._logprobs(index),
            finish_reason=self._reason(finished) if finished else None,
            stop_reason=finished.stop_reason if finished else UNSET,
        )

    def _delta(self, index: int, event: Event) -> Delta:
        match event:
            case Text():
                return Delta(content=event.text)
            case Reasoning():
                return Delta(reasoning_content=event.text)
            case ToolStart():
                function = FunctionDelta(name=event.name, arguments="")
                call_id = self._call_id(index, event)
                call = ToolCallDelta(index=event.index, id=call_id, type="function", function=function)
                return Delta(tool_calls=[call])
            case ToolArguments():
                call = ToolCallDelta(index=event.index, function=FunctionDelta(arguments=event.text))
                return Delta(tool_calls=[call])
            case Finished():
                return Delta()

    def _call_id(self, index: int, start: ToolStart) -> str:
        """The model's, if it gave one, and not the same one before."""
        if start.id is None or (index, start.id) in self._call_ids:
            return self._new_call_id()
        self._call_ids.add((index, start.id))
        return start.id

    def _reason(self, finished: Finished) -> str:
        # OpenAI's: a client that named the function need not be told that it is called.
        return "stop" if self._named_call and finished.reason == "tool_calls" else finished.reason

    def _logprobs(self, index: int) -> ChatLogprobs | None:
        tokens = self._unreported.pop(index, None)
        return chat_logprobs(tokens, self._names) if tokens and self._names else None


def _fold_choice(index: int, parts: Sequence[ChunkChoice]) -> ChatChoice:
    entries = [entry for part in parts if part.logprobs for entry in part.logprobs.content]
    last = parts[-1]
    return ChatChoice(
        index=index,
        message=_fold_message([part.delta for part in parts]),
        logprobs=ChatLogprobs(entries) if entries else None,
        finish_reason=last.finish_reason,
        stop_reason=None if last.stop_reason is UNSET else last.stop_reason,
    )


def _fold_message(deltas: Sequence[Delta]) -> ResponseMessage:
    content = "".join(delta.content or "" for delta in deltas)
    reasoning = "".join(delta.reasoning_content or "" for delta in deltas)
    calls = _fold_calls([call for delta in deltas for call in delta.tool_calls or ()])
    return ResponseMessage(
        role=deltas[0].role or "",
        # OpenAI's null: there is something else instead of text.
        content=None if not content and (calls or reasoning) else content,
        reasoning_content=reasoning or None,
        tool_calls=calls or None,
    )


def _fold_calls(deltas: Sequence[ToolCallDelta]) -> list[ResponseToolCall]:
    return [
        ResponseToolCall(
            id=start.id,
            function=ResponseFunctionCall(
                name=start.function.name or "",
                arguments="".join(delta.function.arguments for delta in deltas if delta.index == start.index),
            ),
        )
        for start in deltas
        if start.id
    ]
