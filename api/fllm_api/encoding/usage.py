"""Token usage of a request, summed over its sequences."""

from __future__ import annotations

from fllm.pipeline.output_processor import SequenceOutput
from fllm.requests.generation import StreamOptions
from fllm.values import Usage
from fllm_api.protocol.usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails


class UsageAccumulator:
    """Sums token counts: each prompt once, and all its choices."""

    def __init__(self, prompt_tokens: int, n: int, options: StreamOptions | None = None) -> None:
        self._prompt_tokens = prompt_tokens
        self._n = n
        self._sequences: dict[int, Usage] = {}
        self._on_every_chunk = bool(options and options.continuous_usage_stats)
        self._in_final_chunk = bool(options and options.include_usage)

    def update(self, output: SequenceOutput) -> None:
        """Record the current usage of a sequence."""
        self._sequences[output.index] = output.usage

    def chunk_usage(self) -> CompletionUsage | None:
        """Return the usage so far if the stream options request it for every chunk."""
        return self.total() if self._on_every_chunk else None

    def final_usage(self) -> CompletionUsage | None:
        """Return the usage for the last chunk if the stream options request it."""
        return self.total() if self._in_final_chunk else None

    def total(self) -> CompletionUsage:
        """Return the usage so far."""
        completion = sum(usage.completion_tokens for usage in self._sequences.values())
        reasoning = sum(usage.reasoning_tokens for usage in self._sequences.values())
        # The first choice of a prompt computes the prompt; the others find its blocks in the cache.
        first = [usage for index, usage in self._sequences.items() if index % self._n == 0]
        return CompletionUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=completion,
            total_tokens=self._prompt_tokens + completion,
            prompt_tokens_details=PromptTokensDetails(sum(usage.cached_tokens for usage in first)),
            completion_tokens_details=CompletionTokensDetails(reasoning),
        )
