"""Encoder of `/v1/chat/completions`: pipeline outputs to chunks, chunks to the full response."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import replace

from fllm.concurrency.turn_executor import Pieces
from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm.serving import ErrorInfo, ResponseEncoder
from fllm_api.config import ReasoningField
from fllm_api.encoding.encoder import ResponseHeader
from fllm_api.encoding.logprobs import TokenFormatter, chat_logprobs, chat_logprobs_in_pieces
from fllm_api.encoding.token_details import TokenDetails, join_token_ids
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
from fllm_api.protocol.errors import ErrorResponse


class ChatEncoder(ResponseEncoder[ChatCompletionChunk]):
    """Encodes a chat stream: for each choice a role chunk, one chunk per event, and one finish chunk."""

    def __init__(
        self,
        header: ResponseHeader,
        usage: UsageAccumulator,
        *,
        role: str = "assistant",
        formatter: TokenFormatter | None = None,
        named_call: bool = False,
        echo: str = "",
        reasoning_field: ReasoningField = "reasoning_content",
        details: TokenDetails | None = None,
    ) -> None:
        self._header = header
        self._usage = usage
        self._role = role
        self._formatter = formatter
        self._named_call = named_call
        self._echo = echo
        self._reasoning_field = reasoning_field
        self._details = details
        self._started: set[int] = set()
        self._pending_logprobs: defaultdict[int, list[OutputToken]] = defaultdict(list)
        """Tokens per choice whose text is not emitted yet. Their log-probabilities go with the next chunk."""
        self._converted: dict[int, tuple[int, ChatLogprobs]] = {}
        """Encoded log-probabilities per choice, and of how many pending tokens they are."""

    def feed(self, output: SequenceOutput) -> list[ChatCompletionChunk]:
        """Return a role chunk if the choice starts, and one chunk per event."""
        self._usage.update(output)
        index = output.index
        if self._formatter is not None:
            self._pending_logprobs[index] += output.tokens
        if self._details is not None:
            self._details.add(output)
        chunks: list[ChatCompletionChunk] = []
        if index not in self._started:
            self._started.add(index)
            opening = ChunkChoice(index=index, delta=Delta(role=self._role, content=self._echo))
            chunk = self._chunk([opening])
            chunks.append(chunk if len(self._started) > 1 else self._with_prompt(chunk, index))
        chunks += [self._chunk([self._choice(index, event)]) for event in output.events]
        return chunks

    def logprob_tokens(self, output: SequenceOutput) -> int:
        """Return the number of tokens whose log-probabilities `feed` would put into chunks."""
        prompt = 0 if self._details is None else self._details.prompt_tokens(output)
        if self._formatter is None or not output.events:
            return prompt
        return prompt + len(self._pending_logprobs[output.index]) + len(output.tokens)

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:
        """Encode the log-probabilities of an output in pieces, so that `feed` takes little time after it."""
        if self._details is not None:
            yield from self._details.convert(output)
        if self._formatter is None:
            return
        tokens = [*self._pending_logprobs[output.index], *output.tokens]
        converted = yield from chat_logprobs_in_pieces(tokens, self._formatter)
        self._converted[output.index] = (len(tokens), converted)

    def error(self, error: ErrorInfo) -> list[ErrorResponse]:
        """Return the event that reports an error."""
        return [ErrorResponse(error)]

    def finish(self) -> list[ChatCompletionChunk]:
        """Return the usage chunk if the stream options request one."""
        usage = self._usage.final_usage()
        return [self._chunk([], last=True)] if usage else []

    def fold(self, chunks: Sequence[ChatCompletionChunk]) -> ChatCompletion:
        """Merge the chunks into the full response."""
        choices: defaultdict[int, list[ChunkChoice]] = defaultdict(list)
        for chunk in chunks:
            for choice in chunk.choices:
                choices[choice.index].append(choice)
        return ChatCompletion(
            id=self._header.id,
            created=self._header.created,
            model=self._header.model,
            choices=[_fold_choice(index, choices[index]) for index in sorted(choices)],
            usage=self._usage.total(),
            prompt_token_ids=chunks[0].prompt_token_ids,
            prompt_logprobs=chunks[0].prompt_logprobs,
        )

    @property
    def needs_tokens(self) -> bool:
        """Whether `feed` needs all tokens of an output, and not only those with log-probabilities."""
        return self._details is not None and self._details.with_token_ids

    def _with_prompt(self, chunk: ChatCompletionChunk, index: int) -> ChatCompletionChunk:
        """Return the first chunk of a response with what it tells about the prompt."""
        if self._details is None:
            return chunk
        return replace(
            chunk,
            prompt_token_ids=self._details.prompt_token_ids(index),
            prompt_logprobs=self._details.take_prompt_logprobs(index),
        )

    def _chunk(self, choices: list[ChunkChoice], *, last: bool = False) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._header.id,
            object="chat.completion.chunk",
            created=self._header.created,
            model=self._header.model,
            choices=choices,
            usage=self._usage.final_usage() if last else self._usage.chunk_usage(),
        )

    def _choice(self, index: int, event: Event) -> ChunkChoice:
        finished = event if isinstance(event, Finished) else None
        return ChunkChoice(
            index=index,
            delta=self._delta(event),
            logprobs=self._logprobs(index),
            finish_reason=self._reason(finished) if finished else None,
            stop_reason=finished.stop_reason if finished else UNSET,
            token_ids=UNSET if self._details is None else self._details.take_token_ids(index),
        )

    def _delta(self, event: Event) -> Delta:
        match event:
            case Text():
                return Delta(content=event.text)
            case Reasoning():
                return self._reasoning_delta(event.text)
            case ToolStart():
                function = FunctionDelta(name=event.name, arguments="")
                call = ToolCallDelta(index=event.index, id=event.id, type="function", function=function)
                return Delta(tool_calls=[call])
            case ToolArguments():
                call = ToolCallDelta(index=event.index, function=FunctionDelta(arguments=event.text))
                return Delta(tool_calls=[call])
            case Finished():
                return Delta()

    def _reasoning_delta(self, text: str) -> Delta:
        field = self._reasoning_field
        return Delta(
            reasoning_content=None if field == "reasoning" else text,
            reasoning=None if field == "reasoning_content" else text,
        )

    def _reason(self, finished: Finished) -> str:
        # As OpenAI's API does: a client that forces a function expects the call anyway.
        return "stop" if self._named_call and finished.reason == "tool_calls" else finished.reason

    def _logprobs(self, index: int) -> ChatLogprobs | None:
        tokens = self._pending_logprobs.pop(index, None)
        if not tokens or self._formatter is None:
            return None
        count, converted = self._converted.pop(index, (-1, None))
        return converted if count == len(tokens) else chat_logprobs(tokens, self._formatter)


def _fold_choice(index: int, parts: Sequence[ChunkChoice]) -> ChatChoice:
    logprobs = [part.logprobs for part in parts if part.logprobs and part.logprobs.content]
    last = parts[-1]
    return ChatChoice(
        index=index,
        message=_fold_message([part.delta for part in parts]),
        logprobs=_concat_logprobs(logprobs) if len(logprobs) > 1 else next(iter(logprobs), None),
        finish_reason=last.finish_reason,
        stop_reason=None if last.stop_reason is UNSET else last.stop_reason,
        token_ids=join_token_ids([part.token_ids for part in parts]),
    )


def _concat_logprobs(parts: Sequence[ChatLogprobs]) -> ChatLogprobs:
    return ChatLogprobs([entry for part in parts for entry in part.content])


def _fold_message(deltas: Sequence[Delta]) -> ResponseMessage:
    content = "".join(delta.content or "" for delta in deltas)
    reasoning_content = "".join(delta.reasoning_content or "" for delta in deltas)
    reasoning = "".join(delta.reasoning or "" for delta in deltas)
    calls = _fold_calls([call for delta in deltas for call in delta.tool_calls or ()])
    return ResponseMessage(
        role=deltas[0].role or "",
        # OpenAI's API sends null if there are calls or reasoning instead of text.
        content=None if not content and (calls or reasoning_content or reasoning) else content,
        reasoning_content=reasoning_content or None,
        reasoning=reasoning or None,
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
