"""Encoder of `/v1/completions`: pipeline outputs to chunks, chunks to the full response."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from msgspec import UNSET, Struct
from msgspec.structs import replace

from fllm.concurrency.turn_executor import Pieces
from fllm.events import Event, Finished, Text
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm.serving import ErrorInfo, ResponseEncoder
from fllm_api.encoding.encoder import ResponseHeader
from fllm_api.encoding.logprobs import (
    EchoedLogprobs,
    TokenFormatter,
    completion_logprobs,
    completion_logprobs_in_pieces,
    concat_logprobs,
    prompt_logprobs,
)
from fllm_api.encoding.token_details import TokenDetails, join_token_ids
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.protocol.completions import Completion, CompletionChoice, CompletionChunk, CompletionLogprobs
from fllm_api.protocol.errors import ErrorResponse


class Echo(Struct, frozen=True):
    """A prompt that is repeated at the start of its choices."""

    text: str
    token_ids: list[int]
    offsets: list[int]
    """Index in ``text`` of each token's first character."""


class CompletionEncoder(ResponseEncoder[CompletionChunk]):
    """Encodes a completion stream: one chunk for each pipeline output that has text or ends a choice."""

    def __init__(
        self,
        header: ResponseHeader,
        usage: UsageAccumulator,
        *,
        n: int = 1,
        formatter: TokenFormatter | None = None,
        echoes: Sequence[Echo] = (),
        details: TokenDetails | None = None,
        echoed_logprobs: int | None = None,
    ) -> None:
        self._header = header
        self._usage = usage
        self._n = n
        self._formatter = formatter
        self._echoes = echoes
        self._details = details
        self._echoed_logprobs = echoed_logprobs
        """Most likely tokens at each position of an echoed prompt; the output may have more."""
        self._started: set[int] = set()
        self._pending_logprobs: defaultdict[int, list[OutputToken]] = defaultdict(list)
        """Tokens per choice whose text is not emitted yet. Their log-probabilities go with the next chunk."""
        self._converted: dict[int, tuple[int, CompletionLogprobs]] = {}
        """Encoded log-probabilities per choice, and of how many pending tokens they are."""

    def feed(self, output: SequenceOutput) -> list[CompletionChunk]:
        """Return one chunk, or none if no text can be emitted yet."""
        self._usage.update(output)
        self._pending_logprobs[output.index] += output.tokens
        if self._details is not None:
            self._details.add(output)
        finished = next((event for event in output.events if isinstance(event, Finished)), None)
        starts = self._starts(output)
        text = "".join(event.text for event in output.events if isinstance(event, Text))
        if not (text or finished or starts):
            return []
        is_first = output.index not in self._started
        self._started.add(output.index)
        choice = CompletionChoice(
            index=output.index,
            text=self._echo(output.index).text + text if starts else text,
            logprobs=self._logprobs(output, starts=starts),
            finish_reason=finished.reason if finished else None,
            stop_reason=finished.stop_reason if finished else None,
        )
        if self._details is not None:
            choice = self._with_details(choice, self._details, is_first=is_first)
        return [self._chunk([choice])]

    @property
    def needs_tokens(self) -> bool:
        """Whether `feed` needs all tokens of an output, and not only those with log-probabilities."""
        return self._details is not None and self._details.with_token_ids

    def _with_details(
        self, choice: CompletionChoice, details: TokenDetails, *, is_first: bool
    ) -> CompletionChoice:
        index = choice.index
        return replace(
            choice,
            token_ids=details.take_token_ids(index),
            prompt_token_ids=details.prompt_token_ids(index) if is_first else UNSET,
            prompt_logprobs=details.take_prompt_logprobs(index) if is_first else UNSET,
        )

    def logprob_tokens(self, output: SequenceOutput) -> int:
        """Return the number of tokens whose log-probabilities `feed` would put into chunks."""
        prompt_tokens = 0 if self._details is None else self._details.prompt_tokens(output)
        if self._formatter is None or not (self._starts(output) or any(map(_is_emitted, output.events))):
            return prompt_tokens
        if self._echoes:
            prompt_tokens += len(output.prompt_logprobs or ())
        return prompt_tokens + len(self._pending_logprobs[output.index]) + len(output.tokens)

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:
        """Encode the log-probabilities of an output in pieces, so that `feed` takes little time after it."""
        if self._details is not None:
            yield from self._details.convert(output)
        if self._formatter is None:
            return
        tokens = [*self._pending_logprobs[output.index], *output.tokens]
        converted = yield from completion_logprobs_in_pieces(
            self._echoed(output), tokens, self._formatter, offset=self._offset(output)
        )
        self._converted[output.index] = (len(tokens), converted)

    def error(self, error: ErrorInfo) -> list[ErrorResponse]:
        """Return the event that reports an error."""
        return [ErrorResponse(error)]

    def finish(self) -> list[CompletionChunk]:
        """Return the usage chunk if the stream options request one."""
        return [self._chunk([], last=True)] if self._usage.final_usage() else []

    def fold(self, chunks: Sequence[CompletionChunk]) -> Completion:
        """Merge the chunks into the full response."""
        choices: defaultdict[int, list[CompletionChoice]] = defaultdict(list)
        for chunk in chunks:
            for choice in chunk.choices:
                choices[choice.index].append(choice)
        return Completion(
            id=self._header.id,
            created=self._header.created,
            model=self._header.model,
            choices=[_fold_choice(index, choices[index]) for index in sorted(choices)],
            usage=self._usage.total(),
        )

    def _chunk(self, choices: list[CompletionChoice], *, last: bool = False) -> CompletionChunk:
        return CompletionChunk(
            id=self._header.id,
            object="text_completion",
            created=self._header.created,
            model=self._header.model,
            choices=choices,
            usage=self._usage.final_usage() if last else self._usage.chunk_usage(),
        )

    def _echo(self, index: int) -> Echo:
        return self._echoes[index // self._n]

    def _logprobs(self, output: SequenceOutput, *, starts: bool) -> CompletionLogprobs | None:
        tokens = self._pending_logprobs.pop(output.index)
        if self._formatter is None:
            return None
        count, converted = self._converted.pop(output.index, (-1, None))
        if count == len(tokens):
            return converted
        logprobs = completion_logprobs(tokens, self._formatter, offset=self._offset(output))
        echoed = self._echoed(output) if starts else None
        if echoed is None:
            return logprobs
        return concat_logprobs([prompt_logprobs(echoed, self._formatter), logprobs])

    def _starts(self, output: SequenceOutput) -> bool:
        """Return whether the output is the first of a choice that begins with an echo."""
        return bool(self._echoes) and output.index not in self._started

    def _offset(self, output: SequenceOutput) -> int:
        return len(self._echo(output.index).text) if self._echoes else 0

    def _echoed(self, output: SequenceOutput) -> EchoedLogprobs | None:
        if output.prompt_logprobs is None or not self._echoes:
            return None
        echo = self._echo(output.index)
        logprobs = [
            each and replace(each, top=each.top[: self._echoed_logprobs]) for each in output.prompt_logprobs
        ]
        return EchoedLogprobs(echo.token_ids, echo.offsets, logprobs)


def _is_emitted(event: Event) -> bool:
    return isinstance(event, Text | Finished)


def _fold_choice(index: int, parts: Sequence[CompletionChoice]) -> CompletionChoice:
    logprobs = [part.logprobs for part in parts if part.logprobs]
    return CompletionChoice(
        index=index,
        text="".join(part.text for part in parts),
        logprobs=concat_logprobs(logprobs) if len(logprobs) > 1 else next(iter(logprobs), None),
        finish_reason=parts[-1].finish_reason,
        stop_reason=parts[-1].stop_reason,
        token_ids=join_token_ids([part.token_ids for part in parts]),
        prompt_token_ids=parts[0].prompt_token_ids,
        prompt_logprobs=parts[0].prompt_logprobs,
    )
