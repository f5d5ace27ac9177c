"""Convert the events of a streamed completion to engine outputs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from fllm import BackendError, EngineOutput, GenerateRequest, TokenLogprob
from fllm.values import FinishReason
from fllm_backends.openai.client import ErrorBody, error_for
from fllm_backends.openai.retokenizer import Retokenizer

TOKEN_ID_PREFIX = "token_id:"
"""Prefix of token names with ``return_tokens_as_token_ids``."""
_FINISH_REASONS: dict[str, FinishReason] = {"length": "length", "abort": "abort"}


class Logprobs(Struct, frozen=True):
    """OpenAI's lists for completions; llama.cpp sends other fields under the same name."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(Struct, frozen=True):
    """The new part of the response."""

    text: str | None = None
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class PromptTokensDetails(Struct, frozen=True):
    """Number of prompt tokens in the server's cache."""

    cached_tokens: int | None = None


class Usage(Struct, frozen=True):
    """The part of the usage that is not counted here."""

    prompt_tokens_details: PromptTokensDetails | None = None


class Chunk(Struct, frozen=True):
    """One event of a stream."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: ErrorBody | str | None = None


def parse_chunk(data: bytes) -> Chunk:
    """Parse an event; raise the error that it reports, or `BackendError` if it is not a chunk."""
    try:
        chunk = msgspec.json.decode(data, type=Chunk)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BackendError(f"the upstream server sent a malformed completion: {problem}") from problem
    if chunk.error is not None:
        error = ErrorBody(chunk.error) if isinstance(chunk.error, str) else chunk.error
        raise error_for(error.status(), error)
    return chunk


class ResponseReader:
    """Converts the events of one response to engine outputs; the last one follows the end of the stream."""

    def __init__(
        self, request: GenerateRequest, eos_token_ids: Sequence[int], retokenizer: Retokenizer | None
    ) -> None:
        sampling = self._sampling = request.sampling
        self._retokenizer = retokenizer
        """Set if the server returns only text."""
        self._stop_tokens = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_token_ids)}
        self._missing_echo = 0 if sampling.prompt_logprobs is None else len(request.token_ids)
        self._echo: list[TokenLogprob | None] = []
        self._last_choice: Choice | None = None
        self._cached_tokens = 0

    def feed(self, events: Sequence[bytes]) -> EngineOutput | None:
        """Return the output of events that arrived together, or None; `finish` returns the last output."""
        choices = [choice for event in events for choice in self._unfinished(parse_chunk(event))]
        output = self._output(choices)
        return output if output.token_ids or output.prompt_logprobs else None

    def finish(self) -> EngineOutput:
        """Return the last output; raise `BackendError` if the stream ended too early."""
        last = self._last_choice
        if last is None:
            raise BackendError("the upstream server ended its response without a finish reason")
        output = self._output([last])
        if isinstance(last.stop_reason, int) and self._retokenizer is not None:
            output.token_ids.append(last.stop_reason)
        finish_reason = _FINISH_REASONS.get(last.finish_reason or "", "stop")
        stopped = finish_reason == "stop" and output.token_ids and output.token_ids[-1] in self._stop_tokens
        return msgspec.structs.replace(
            output,
            finish_reason=finish_reason,
            stop_token=output.token_ids[-1] if stopped else None,
            cached_tokens=self._cached_tokens,
        )

    def _unfinished(self, chunk: Chunk) -> list[Choice]:
        """Return all choices except the last one of the response, which is kept for `finish`."""
        if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
            self._cached_tokens = chunk.usage.prompt_tokens_details.cached_tokens or 0
        for choice in chunk.choices:
            if choice.finish_reason == "error":
                raise BackendError("the upstream server failed during its response")
            if choice.finish_reason is not None:
                self._last_choice = choice
        return [choice for choice in chunk.choices if choice.finish_reason is None]

    def _output(self, choices: Sequence[Choice]) -> EngineOutput:
        token_ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        for choice in choices:
            entries = self._without_echo(self._logprobs(choice))
            token_ids += self._ids(choice, entries)
            logprobs += [entry for entry in entries if entry is not None]
        return EngineOutput(
            token_ids=token_ids,
            logprobs=logprobs if logprobs and self._sampling.logprobs is not None else None,
            prompt_logprobs=self._take_echo(),
        )

    def _ids(self, choice: Choice, entries: Sequence[TokenLogprob | None]) -> list[int]:
        if self._retokenizer is not None:
            return self._retokenizer.feed(choice.text or "")
        if choice.logprobs is not None:
            return [entry.token_id for entry in entries if entry is not None]
        return choice.token_ids or []

    def _logprobs(self, choice: Choice) -> list[TokenLogprob | None]:
        logprobs = choice.logprobs
        if logprobs is None or self._retokenizer is not None:
            return []
        tops = logprobs.top_logprobs or [None] * len(logprobs.tokens)
        count = max(self._sampling.logprobs or 0, self._sampling.prompt_logprobs or 0)
        try:
            return [
                None if logprob is None else TokenLogprob(_token_id(name), logprob, _top_logprobs(top, count))
                for name, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=True)
            ]
        except ValueError as error:
            raise BackendError(f"the upstream server sent malformed log-probabilities: {error}") from error

    def _without_echo(self, entries: list[TokenLogprob | None]) -> list[TokenLogprob | None]:
        echo, rest = entries[: self._missing_echo], entries[self._missing_echo :]
        self._missing_echo -= len(echo)
        self._echo += echo
        return rest

    def _take_echo(self) -> list[TokenLogprob | None] | None:
        """Return the log-probabilities of the prompt once they are complete, and only once."""
        if self._missing_echo or not self._echo:
            return None
        echo, self._echo = self._echo, []
        return echo


def _token_id(name: str) -> int:
    return int(name.removeprefix(TOKEN_ID_PREFIX))


def _top_logprobs(top: dict[str, float] | None, count: int) -> tuple[tuple[int, float], ...]:
    """Return the top tokens; servers add the sampled token, which is dropped if it is not one of them."""
    ranked = sorted((top or {}).items(), key=lambda pair: -pair[1])
    return tuple((_token_id(name), logprob) for name, logprob in ranked[:count])
