"""The usage of a request from that of its sequences."""

from __future__ import annotations

from fllm.pipeline.output_processor import SequenceOutput
from fllm.values import Usage
from fllm_api.protocol.generation import StreamOptions
from fllm_api.protocol.usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails


class UsageAccumulator:
    """Sums up: each prompt once, all its answers."""

    def __init__(self, prompt_tokens: int, n: int, options: StreamOptions | None = None) -> None:
        self._prompt_tokens = prompt_tokens
        self._n = n
        self._sequences: dict[int, Usage] = {}
        self._always = bool(options and options.continuous_usage_stats)
        self._finally = bool(options and options.include_usage)

    def update(self, output: SequenceOutput) -> None:
        """A sequence has come further."""
        self._sequences[output.index] = output.usage

    def chunk_usage(self) -> CompletionUsage | None:
        """For a chunk of an answer, where usage was asked for on every one."""
        return self.total() if self._always else None

    def final_usage(self) -> CompletionUsage | None:
        """For the chunk after the answers, where one was asked for."""
        return self.total() if self._finally else None

    def total(self) -> CompletionUsage:
        """The usage so far."""
        completion = sum(usage.completion_tokens for usage in self._sequences.values())
        reasoning = sum(usage.reasoning_tokens for usage in self._sequences.values())
        # The first answer to a prompt computes it; the others find its blocks in the cache.
        first = [usage for index, usage in self._sequences.items() if index % self._n == 0]
        return CompletionUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=completion,
            total_tokens=self._prompt_tokens + completion,
            prompt_tokens_details=PromptTokensDetails(sum(usage.cached_tokens for usage in first)),
            completion_tokens_details=CompletionTokensDetails(reasoning),
        )
