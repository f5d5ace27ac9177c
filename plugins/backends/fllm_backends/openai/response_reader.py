"""The events of one streamed completion, made into steps."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from fllm import BackendError, EngineOutput, GenerateRequest, TokenLogprob
from fllm.values import FinishReason
from fllm_backends.openai.client import ErrorBody, failure
from fllm_backends.openai.retokenizer import Speller

TOKEN = "token_id:"
"""How a token is named under ``return_tokens_as_token_ids``."""
_FINISH: dict[str, FinishReason] = {"length": "length", "abort": "abort"}


class Logprobs(Struct, frozen=True):
    """OpenAI's lists for completions; llama.cpp sends others under the same name."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(Struct, frozen=True):
    """What is new in the answer."""

    text: str | None = None
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class CachedTokens(Struct, frozen=True):
    """Of the prompt, those found in the server's cache."""

    cached_tokens: int | None = None


class UsageSoFar(Struct, frozen=True):
    """What the request cost; the rest is counted here."""

    prompt_tokens_details: CachedTokens | None = None


class Chunk(Struct, frozen=True):
    """One event of a stream."""

    choices: list[Choice] = []
    usage: UsageSoFar | None = None
    error: ErrorBody | str | None = None


def read_chunk(data: bytes) -> Chunk:
    """Decode an event; raises what the event reports as an error, and `BackendError` where it is no chunk."""
    try:
        chunk = msgspec.json.decode(data, type=Chunk)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BackendError(f"the server behind sent what is no completion: {problem}") from problem
    if chunk.error is not None:
        error = ErrorBody(chunk.error) if isinstance(chunk.error, str) else chunk.error
        raise failure(error.status(), error)
    return chunk


class Answer:
    """Takes the events of one answer; gives steps, the last of them at the end of the stream."""

    def __init__(self, prompt: GenerateRequest, end_tokens: Sequence[int], speller: Speller | None) -> None:
        self._sampling = prompt.sampling
        self._speller = speller
        """Where the server answers with text alone."""
        ends = () if prompt.sampling.ignore_eos else end_tokens
        self._stop_tokens = {*prompt.sampling.stop_token_ids, *ends}
        asked = prompt.sampling.prompt_logprobs is not None
        self._echo_left = len(prompt.token_ids) if asked else 0
        self._echo: list[TokenLogprob | None] = []
        self._last: Choice | None = None
        self._cached_tokens = 0

    def feed(self, events: Sequence[bytes]) -> EngineOutput | None:
        """What events that came together bring, if it is anything; the end waits for `finish`."""
        choices = [choice for event in events for choice in self._read(read_chunk(event))]
        step = self._step(choices)
        return step if step.token_ids or step.prompt_logprobs else None

    def finish(self) -> EngineOutput:
        """The last step; raises `BackendError` where the stream ended before the answer did."""
        if self._last is None:
            raise BackendError("the server behind ended its answer without saying why")
        step = self._step([self._last])
        if isinstance(self._last.stop_reason, int) and self._speller is not None:
            step.token_ids.append(self._last.stop_reason)
        finish = _FINISH.get(self._last.finish_reason or "", "stop")
        ends = finish == "stop" and step.token_ids and step.token_ids[-1] in self._stop_tokens
        return msgspec.structs.replace(
            step,
            finish_reason=finish,
            stop_token=step.token_ids[-1] if ends else None,
            cached_tokens=self._cached_tokens,
        )

    def _read(self, chunk: Chunk) -> list[Choice]:
        """The choices that are not the last one, which is kept until all is known."""
        if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
            self._cached_tokens = chunk.usage.prompt_tokens_details.cached_tokens or 0
        for choice in chunk.choices:
            if choice.finish_reason == "error":
                raise BackendError("the server behind failed while it answered")
            if choice.finish_reason is not None:
                self._last = choice
        return [choice for choice in chunk.choices if choice.finish_reason is None]

    def _step(self, choices: Sequence[Choice]) -> EngineOutput:
        token_ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        for choice in choices:
            entries = self._without_echo(self._entries(choice))
            token_ids += self._ids(choice, entries)
            logprobs += [entry for entry in entries if entry is not None]
        return EngineOutput(
            token_ids=token_ids,
            logprobs=logprobs if logprobs and self._sampling.logprobs is not None else None,
            prompt_logprobs=self._whole_echo(),
        )

    def _ids(self, choice: Choice, entries: Sequence[TokenLogprob | None]) -> list[int]:
        if self._speller is not None:
            return self._speller.spell(choice.text or "")
        if choice.logprobs is not None:
            return [entry.token_id for entry in entries if entry is not None]
        return choice.token_ids or []

    def _entries(self, choice: Choice) -> list[TokenLogprob | None]:
        said = choice.logprobs
        if said is None or self._speller is not None:
            return []
        tops = said.top_logprobs or [None] * len(said.tokens)
        wanted = max(self._sampling.logprobs or 0, self._sampling.prompt_logprobs or 0)
        try:
            return [
                None if logprob is None else TokenLogprob(_id(name), logprob, _likeliest(top, wanted))
                for name, logprob, top in zip(said.tokens, said.token_logprobs, tops, strict=True)
            ]
        except ValueError as error:
            raise BackendError(f"the server behind sent log-probabilities of no token: {error}") from error

    def _without_echo(self, entries: list[TokenLogprob | None]) -> list[TokenLogprob | None]:
        echo, rest = entries[: self._echo_left], entries[self._echo_left :]
        self._echo_left -= len(echo)
        self._echo += echo
        return rest

    def _whole_echo(self) -> list[TokenLogprob | None] | None:
        """All of it, once."""
        if self._echo_left or not self._echo:
            return None
        whole, self._echo = self._echo, []
        return whole


def _id(name: str) -> int:
    return int(name.removeprefix(TOKEN))


def _likeliest(top: dict[str, float] | None, wanted: int) -> tuple[tuple[int, float], ...]:
    """Servers list the sampled token among them; it is dropped again where it was none of the likeliest."""
    ranked = sorted((top or {}).items(), key=lambda pair: -pair[1])
    return tuple((_id(name), logprob) for name, logprob in ranked[:wanted])
