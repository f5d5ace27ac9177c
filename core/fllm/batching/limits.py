"""Limits of a batch, and the context length that the KV cache allows."""

from __future__ import annotations

import logging

from msgspec import Struct
from msgspec.structs import replace

from fllm.config import BackendConfig
from fllm.errors import ConfigError
from fllm.values import ModelCard

log = logging.getLogger("fllm.batching")

DOUBLING_CONTEXT = 2200
"""Position at which a prompt token costs twice as much as the first one, because it attends to all before it.

Measured with SmolLM2-135M in int8 on 2 cores: 2,050 to 2,700 with chunks of 16 to 256 at positions of 500 to
7,000, by the time of the same chunk at 0.
"""


class BatchLimits(Struct, frozen=True, kw_only=True):
    """The maximum size of a batch, and the size of a KV block. The defaults suit a CPU."""

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    """Maximum number of tokens per step, of decodes and prompts together."""
    prefill_budget: int | None = 48
    """Maximum cost of the prompt tokens in a step, in units of one token at the start of a context. ``None``:
    no limit but ``max_num_batched_tokens``, and every token costs one. It bounds how long other sequences
    wait for a step while a long prompt is computed. A larger budget makes the long prompt cheaper."""
    solo_prefill_budget: int = 384
    """The same for a sequence that has been the only one for a while. A request that then arrives waits
    longer, once."""
    block_size: int = 16
    max_drafting_seqs: int | None = None
    """Nothing is drafted while more sequences run. ``None``: whatever number saves time, as measured."""
    max_loras: int | None = None
    """Maximum number of different LoRA adapters among the running sequences."""

    def step_prefill_budget(self, token_budget: int, *, solo: bool) -> float:
        """Return the prefill budget of a step whose batch may hold ``token_budget`` more tokens."""
        if self.prefill_budget is None:
            return token_budget
        return min(self.solo_prefill_budget if solo else self.prefill_budget, token_budget)

    def token_cost(self, position: int) -> float:
        """Return the part of the prefill budget (>= 1) that a token of a chunk from ``position`` on takes."""
        return 1.0 if self.prefill_budget is None else 1 + position / DOUBLING_CONTEXT

    def with_config(self, config: BackendConfig) -> BatchLimits:
        """Return these limits with the values that the configuration sets.

        If the configuration sets ``max_num_batched_tokens``, this limit applies to prompts as well, and no
        prefill budget applies. Raise `ConfigError` if the values contradict each other.
        """
        seqs, tokens = config.max_num_seqs, config.max_num_batched_tokens
        if seqs is None:
            seqs = self.max_num_seqs if tokens is None else min(self.max_num_seqs, tokens)
        if tokens is None:
            tokens = max(self.max_num_batched_tokens, seqs)
        if not 0 < seqs <= tokens:
            raise ConfigError(
                f"--max-num-batched-tokens is {tokens} and --max-num-seqs is {seqs}: --max-num-seqs must be "
                "at least 1 and at most --max-num-batched-tokens, since each sequence takes a token per step"
            )
        speculation = config.speculative_config
        drafting = None if speculation is None else speculation.disable_by_batch_size
        return replace(
            self,
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            prefill_budget=self.prefill_budget if config.max_num_batched_tokens is None else None,
            max_drafting_seqs=drafting or self.max_drafting_seqs,
            max_loras=config.max_loras,
        )


def check_length(model_length: int, max_model_len: int | None) -> None:
    """Raise `ConfigError` if ``--max-model-len`` exceeds the model's own context length.

    A runner calls this as soon as it has read ``model_length``, so that the error appears before weights are
    loaded.
    """
    if max_model_len is not None and max_model_len > model_length:
        raise ConfigError(
            f"--max-model-len is {max_model_len} and the model's own is {model_length}: "
            "choose a value that is not larger"
        )


def context_length(card: ModelCard, config: BackendConfig, capacity: int) -> int:
    """Return the maximum length of a sequence: the model's, lowered by the configuration or the KV cache.

    ``capacity`` is the number of tokens that the KV cache holds. Raise `ConfigError` if it is zero.
    """
    check_length(card.max_model_len, config.max_model_len)
    length = card.max_model_len if config.max_model_len is None else config.max_model_len
    if capacity < 1:
        raise ConfigError("no memory is left for the KV cache; choose a smaller model or --dtype")
    if length > capacity:
        log.warning(
            "max_model_len is lowered to the capacity of the KV cache: %d tokens instead of %d",
            capacity,
            length,
        )
    return min(length, capacity)
