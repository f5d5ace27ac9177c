"""All outputs of one sequence, merged for a response that is not streamed."""

from __future__ import annotations

from msgspec.structs import replace

from fllm.events import Event, merge_events
from fllm.pipeline.output_processor import OutputToken, SequenceOutput

MAX_EVENTS = 256
"""Number of new events after which they are merged with the others."""


class WholeOutput:
    """Merges outputs as they arrive, so that a long text does not need an object for each token."""

    def __init__(self, first: SequenceOutput, *, keep_tokens: bool = False) -> None:
        self._keep_tokens = keep_tokens
        self._first = self._last = first
        self._events: list[Event] = [*first.events]
        self._unmerged = 0
        self._raw_text = [first.raw_text]
        self._tokens: list[OutputToken] = [*self._kept(first)]

    def add(self, output: SequenceOutput) -> None:
        """Add the next output."""
        self._events += output.events
        self._tokens += self._kept(output)
        self._last = output
        self._raw_text.append(output.raw_text)
        self._unmerged += len(output.events)
        if self._unmerged > MAX_EVENTS:
            self._events, self._unmerged = merge_events(self._events), 0

    def merged(self) -> SequenceOutput:
        """Return all outputs as one. Its tokens are all, or those with log-probabilities."""
        return replace(
            self._last,
            events=merge_events(self._events),
            tokens=self._tokens,
            prompt_logprobs=self._first.prompt_logprobs,
            raw_text="".join(self._raw_text),
        )

    def _kept(self, output: SequenceOutput) -> list[OutputToken]:
        keeps = self._keep_tokens or (output.tokens and output.tokens[0].logprob is not None)
        return output.tokens if keeps else []
