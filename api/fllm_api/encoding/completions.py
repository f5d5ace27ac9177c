"""Outputs to chunks of `/v1/completions`, and those to the whole answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct

from fllm.events import Finished, Text
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm_api.encoding.encoder import ResponseHeader
from fllm_api.encoding.logprobs import TokenFormatter, completion_logprobs, concat_logprobs, prompt_logprobs
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.protocol.completions import Completion, CompletionChoice, CompletionChunk, CompletionLogprobs


class Echo(Struct, frozen=True):
    """A prompt that its answers begin with."""

    text: str
    token_ids: list[int]
    offsets: list[int]
    """Where in the text each token begins."""


class CompletionEncoder:
    """The stream of completions: for each output of the pipeline that shows something, one chunk."""

    def __init__(
        self,
        head: ResponseHeader,
        tally: UsageAccumulator,
        *,
        n: int = 1,
        names: TokenFormatter | None = None,
        echoes: Sequence[Echo] = (),
    ) -> None:
        self._head = head
        self._tally = tally
        self._n = n
        self._names = names
        self._echoes = echoes
        self._begun: set[int] = set()
        self._unreported: defaultdict[int, list[OutputToken]] = defaultdict(list)
        """Tokens whose text is still held back: their log-probabilities go with the next chunk."""

    def feed(self, output: SequenceOutput) -> list[CompletionChunk]:
        """One chunk, or none where no text is certain yet."""
        self._tally.update(output)
        self._unreported[output.index] += output.tokens
        finished = next((event for event in output.events if isinstance(event, Finished)), None)
        begins = bool(self._echoes) and output.index not in self._begun
        text = "".join(event.text for event in output.events if isinstance(event, Text))
        if not (text or finished or begins):
            return []
        self._begun.add(output.index)
        choice = CompletionChoice(
            index=output.index,
            text=self._echo(output.index).text + text if begins else text,
            logprobs=self._logprobs(output, begins=begins),
            finish_reason=finished.reason if finished else None,
            stop_reason=finished.stop_reason if finished else None,
        )
        return [self._chunk([choice])]

    def finish(self) -> list[CompletionChunk]:
        """The usage, where asked for."""
        return [self._chunk([], last=True)] if self._tally.final_usage() else []

    def fold(self, chunks: Sequence[CompletionChunk]) -> Completion:
        """The whole answer."""
        choices: defaultdict[int, list[CompletionChoice]] = defaultdict(list)
        for chunk in chunks:
            for choice in chunk.choices:
                choices[choice.index].append(choice)
        return Completion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[_fold_choice(index, choices[index]) for index in sorted(choices)],
            usage=self._tally.total(),
        )

    def _chunk(self, choices: list[CompletionChoice], *, last: bool = False) -> CompletionChunk:
        return CompletionChunk(
            id=self._head.id,
            object="text_completion",
            created=self._head.created,
            model=self._head.model,
            choices=choices,
            usage=self._tally.final_usage() if last else self._tally.chunk_usage(),
        )

    def _echo(self, index: int) -> Echo:
        return self._echoes[index // self._n]

    def _logprobs(self, output: SequenceOutput, *, begins: bool) -> CompletionLogprobs | None:
        tokens = self._unreported.pop(output.index)
        if self._names is None:
            return None
        offset = len(self._echo(output.index).text) if self._echoes else 0
        ours = completion_logprobs(tokens, self._names, offset=offset)
        if not begins or output.prompt_logprobs is None:
            return ours
        echo = self._echo(output.index)
        theirs = prompt_logprobs(echo.token_ids, echo.offsets, output.prompt_logprobs, self._names)
        return concat_logprobs([theirs, ours])


def _fold_choice(index: int, parts: Sequence[CompletionChoice]) -> CompletionChoice:
    logprobs = [part.logprobs for part in parts if part.logprobs]
    return CompletionChoice(
        index=index,
        text="".join(part.text for part in parts),
        logprobs=concat_logprobs(logprobs) if logprobs else None,
        finish_reason=parts[-1].finish_reason,
        stop_reason=parts[-1].stop_reason,
    )
