"""Encoders of `/api/chat` and `/api/generate`: outputs to lines, lines to the whole response."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from fllm import (
    ErrorInfo,
    Finished,
    Reasoning,
    RequestRecord,
    ResponseEncoder,
    SequenceOutput,
    Text,
    TokenLogprob,
    ToolArguments,
    ToolStart,
    Usage,
)
from fllm.concurrency.turn_executor import Pieces
from fllm.pipeline.output_processor import OutputToken
from fllm.tokenizer import Tokenizer
from fllm_dialects.ollama.protocol import (
    CalledFunction,
    OllamaChatChunk,
    OllamaChunk,
    OllamaError,
    OllamaGenerateChunk,
    OllamaLogprob,
    OllamaMessage,
    OllamaToolCall,
    OllamaTopLogprob,
)

Chunk = TypeVar("Chunk", bound=OllamaChunk)

PIECE_TOKENS = 64
"""Number of tokens whose log-probabilities are converted at once."""
MIN_LOGPROB = -9999.0
"""Lowest log-probability that is reported, because JSON has no infinity."""


class OllamaEncoder(ResponseEncoder[Chunk], Generic[Chunk]):
    """Encodes one output: a line for each piece of text, a line for each complete tool call, and the end."""

    def __init__(self, model: str, record: RequestRecord, tokenizer: Tokenizer | None) -> None:
        """Create it with the tokenizer if log-probabilities are reported."""
        self._model = model
        self._record = record
        self._tokenizer = tokenizer
        self._call: ToolStart | None = None
        """The call whose arguments arrive."""
        self._arguments: list[str] = []
        self._calls = 0
        self._logprobs: list[OllamaLogprob] = []
        """Those of tokens whose text is not in a line yet."""
        self._converted = False
        """Whether they contain those of the output that follows."""

    def feed(self, output: SequenceOutput) -> list[Chunk]:
        """Return the lines for an output."""
        if not self._converted:
            self._add_logprobs(output.tokens)
        self._converted = False
        chunks: list[Chunk] = []
        for event in output.events:
            match event:
                case Text():
                    chunks.append(self._piece(text=event.text))
                case Reasoning():
                    chunks.append(self._piece(thinking=event.text))
                case ToolStart():
                    chunks += self._end_call()
                    self._call = event
                case ToolArguments():
                    self._arguments.append(event.text)
                case Finished():
                    chunks += self._end_call()
                    chunks.append(self._end(event.reason, event.usage))
        return chunks

    def logprob_tokens(self, output: SequenceOutput) -> int:
        """Return the number of tokens whose log-probabilities `feed` would put into lines."""
        return 0 if self._tokenizer is None else len(output.tokens)

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:
        """Convert the log-probabilities of an output in pieces, so that `feed` takes little time after it."""
        for start in range(0, len(output.tokens), PIECE_TOKENS):
            self._add_logprobs(output.tokens[start : start + PIECE_TOKENS])
            yield 0
        self._converted = True

    def error(self, error: ErrorInfo) -> list[Any]:
        """Return the line with which a stream ends that fails."""
        return [OllamaError(error.message)]

    def piece(self, *, text: str = "", **fields: Any) -> Chunk:
        """Return a line with a piece of the response."""
        raise NotImplementedError

    def _add_logprobs(self, tokens: Iterable[OutputToken]) -> None:
        if (tokenizer := self._tokenizer) is not None:
            self._logprobs += [_logprob(each.logprob, tokenizer) for each in tokens if each.logprob]

    def _piece(self, **content: Any) -> Chunk:
        logprobs, self._logprobs = self._logprobs, []
        return self.piece(done=False, logprobs=logprobs or None, **content, **self._head())

    def _end(self, reason: str, usage: Usage) -> Chunk:
        logprobs, self._logprobs = self._logprobs, []
        return self.piece(
            done=True,
            done_reason="length" if reason == "length" else "stop",
            logprobs=logprobs or None,
            prompt_eval_count=usage.prompt_tokens,
            eval_count=usage.completion_tokens,
            **_durations(self._record),
            **self._head(),
        )

    def _end_call(self) -> list[Chunk]:
        """Return the line with the call that is complete. Arguments that are cut off are text."""
        call, text = self._call, "".join(self._arguments)
        self._call, self._arguments = None, []
        if call is None:
            return []
        try:
            arguments = msgspec.json.decode(text or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return [self._piece(text=text)]
        self._calls += 1
        function = CalledFunction(call.name, arguments, self._calls - 1)
        return [self._piece(tool_calls=[OllamaToolCall(function, call.id)])]

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": timestamp()}


class OllamaChatEncoder(OllamaEncoder[OllamaChatChunk]):
    """Encodes the lines of `/api/chat`."""

    def piece(
        self,
        *,
        text: str = "",
        thinking: str | None = None,
        tool_calls: list[OllamaToolCall] | None = None,
        **fields: Any,
    ) -> OllamaChatChunk:
        """Return a line with a piece of the message."""
        message = OllamaMessage(role="assistant", content=text, thinking=thinking, tool_calls=tool_calls)
        return OllamaChatChunk(message=message, **fields)

    def fold(self, chunks: Sequence[OllamaChatChunk]) -> OllamaChatChunk:
        """Return the response of all lines."""
        messages = [chunk.message for chunk in chunks]
        calls = [call for message in messages for call in message.tool_calls or ()]
        message = OllamaMessage(
            role="assistant",
            content="".join(message.content or "" for message in messages),
            thinking="".join(message.thinking or "" for message in messages) or None,
            tool_calls=calls or None,
        )
        return replace(chunks[-1], message=message, logprobs=_joined_logprobs(chunks))


class OllamaGenerateEncoder(OllamaEncoder[OllamaGenerateChunk]):
    """Encodes the lines of `/api/generate`."""

    def piece(
        self,
        *,
        text: str = "",
        thinking: str | None = None,
        tool_calls: object = None,  # noqa: ARG002  (there are no tools)
        **fields: Any,
    ) -> OllamaGenerateChunk:
        """Return a line with a piece of the response."""
        return OllamaGenerateChunk(response=text, thinking=thinking, **fields)

    def fold(self, chunks: Sequence[OllamaGenerateChunk]) -> OllamaGenerateChunk:
        """Return the response of all lines."""
        return replace(
            chunks[-1],
            response="".join(chunk.response for chunk in chunks),
            thinking="".join(chunk.thinking or "" for chunk in chunks) or None,
            logprobs=_joined_logprobs(chunks),
        )


def _durations(record: RequestRecord) -> dict[str, Any]:
    """Return the times of a request until now, in nanoseconds."""
    now = time.monotonic()
    submitted = record.submitted_at or now
    first = record.first_token_at or now
    seconds = {
        "total_duration": now - record.received_at,
        "load_duration": submitted - record.received_at,
        "prompt_eval_duration": first - submitted,
        "eval_duration": now - first,
    }
    return {name: max(int(value * 1e9), 0) for name, value in seconds.items()}


def timestamp(seconds: float | None = None) -> str:
    """Return a Unix time, or the present, as RFC 3339 has it."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _joined_logprobs(chunks: Sequence[OllamaChunk]) -> list[OllamaLogprob] | None:
    return [logprob for chunk in chunks for logprob in chunk.logprobs or ()] or None


def _logprob(logprob: TokenLogprob, tokenizer: Tokenizer) -> OllamaLogprob:
    tops = [OllamaTopLogprob(*_token(i, value, tokenizer)) for i, value in logprob.top]
    return OllamaLogprob(*_token(logprob.token_id, logprob.logprob, tokenizer), top_logprobs=tops)


def _token(token_id: int, logprob: float, tokenizer: Tokenizer) -> tuple[str, float, list[int]]:
    data = tokenizer.token_bytes(token_id)
    return data.decode(errors="replace"), max(logprob, MIN_LOGPROB), list(data)
