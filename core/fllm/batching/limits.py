"""How much is computed at once, and how long a sequence may become."""

from __future__ import annotations

import logging

from msgspec import Struct
from msgspec.structs import replace

from fllm.config import BackendConfig
from fllm.errors import ConfigError
from fllm.values import ModelCard

log = logging.getLogger("fllm.batching")

DOUBLING_CONTEXT = 800
"""A prompt's token after so many others costs twice what the first did, since it attends to them all.

Measured with SmolLM2-135M in int8 on 2 cores, in chunks as small as the budget makes them: 37 tokens at 500
took 17 ms, 14 at 2,000 15 ms, 9 at 4,000 19 ms. Chunks of 64 and more share the reading of keys: 1,700.
"""


class BatchLimits(Struct, frozen=True, kw_only=True):
    """What one batch holds at most, and the size of a KV block. The defaults suit a cpu."""

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    """Of those who decode and of prompts together."""
    prefill_budget: int | None = 48
    """What a step spends on prompts, in tokens at the start of a context; ``None``: all of the batch, and a
    token counts as one wherever it stands. It bounds how long others wait for a step beside a long prompt.
    More make that one cheaper."""
    lone_prefill_budget: int = 256
    """The same for a sequence that has been the only one for a while. Who comes then waits longer, once."""
    block_size: int = 16
    max_drafting_seqs: int = 2
    """While more sequences run, nothing is drafted: a batch of many computes no token for nothing."""

    def budget(self, room: int, *, alone: bool) -> float:
        """What a step spends on prefill at most, if its batch has room for so many tokens."""
        if self.prefill_budget is None:
            return room
        return min(self.lone_prefill_budget if alone else self.prefill_budget, room)

    def price(self, position: int) -> float:
        """What each token of a chunk that starts at this position takes of the prefill budget: 1 or more."""
        return 1.0 if self.prefill_budget is None else 1 + position / DOUBLING_CONTEXT

    def under(self, config: BackendConfig) -> BatchLimits:
        """These limits, save where the configuration has its own; `ConfigError` if those contradict.

        A configuration that says how many tokens a batch holds means prompts, too: no budget is left.
        """
        seqs, tokens = config.max_num_seqs, config.max_num_batched_tokens
        if seqs is None:
            seqs = self.max_num_seqs if tokens is None else min(self.max_num_seqs, tokens)
        if tokens is None:
            tokens = max(self.max_num_batched_tokens, seqs)
        if not 0 < seqs <= tokens:
            raise ConfigError(
                f"--max-num-batched-tokens is {tokens} and --max-num-seqs is {seqs}: "
                "there must be a sequence, and a token in each batch for every one"
            )
        speculation = config.speculative_config
        drafting = speculation and speculation.disable_by_batch_size
        return replace(
            self,
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            prefill_budget=self.prefill_budget if config.max_num_batched_tokens is None else None,
            max_drafting_seqs=drafting or self.max_drafting_seqs,
        )


def check_length(own: int, asked: int | None) -> None:
    """Raise `ConfigError` if ``--max-model-len`` exceeds the model's own context.

    A runner calls it as soon as it knows ``own``: nobody should wait for weights that won't be used.
    """
    if asked is not None and asked > own:
        raise ConfigError(f"--max-model-len is {asked} and the model's own is {own}: it may only be lowered")


def context_length(card: ModelCard, config: BackendConfig, capacity: int) -> int:
    """The longest sequence served: the model's limit, lowered by the configuration or by the KV cache."""
    check_length(card.max_model_len, config.max_model_len)
    wanted = card.max_model_len if config.max_model_len is None else config.max_model_len
    if capacity < 1:
        raise ConfigError("there is no memory left for the KV cache; choose a smaller model or --dtype")
    if wanted > capacity:
        log.warning(
            "the KV cache holds %d tokens: max_model_len is lowered from %d to that", capacity, wanted
        )
    return min(wanted, capacity)
