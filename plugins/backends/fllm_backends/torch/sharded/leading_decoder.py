"""The decoder of rank 0: it lets the other ranks run each call, too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fllm.errors import BackendLost
from fllm_backends.torch import logit_masks
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape
from fllm_backends.torch.model import Decoder, StatefulDecoder
from fllm_backends.torch.ranks import Ranks
from fllm_backends.torch.sharded.batch_parts import BatchEncoder
from fllm_backends.torch.sharded.messages import Logits, Message


class LeadingDecoder:
    """A `StatefulDecoder` over that of rank 0, which computes its part of each result."""

    def __init__(
        self,
        inner: Decoder,
        ranks: Ranks,
        send: Callable[[Message], None],
        lost: Callable[[Exception], BackendLost],
    ) -> None:
        """Wrap a decoder. ``lost`` returns what a call raises that has failed: the ranks are out of step."""
        self._inner = inner
        self._ranks = ranks
        self._send = send
        self._lost = lost
        self._encoder = BatchEncoder()
        self.device: torch.device = inner.device
        self.vocab_size: int = inner.vocab_size
        self.kv_shapes: tuple[KVShape, ...] = inner.kv_shapes
        self.cache_dtype: torch.dtype = inner.cache_dtype
        self.block_multiple: int = inner.block_multiple

    @property
    def state_size(self) -> int:
        """Number of bytes of the state of one sequence."""
        return self._inner.state_size if isinstance(self._inner, StatefulDecoder) else 0

    def allocate_states(self, slots: int) -> None:
        """Allocate the states of this number of sequences, on this rank."""
        if isinstance(self._inner, StatefulDecoder):
            self._inner.allocate_states(slots)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, [tokens, hidden]; store their KV in the cache."""
        try:
            self._send(self._encoder.encode(token_ids, batch.rows))
            return self._inner.forward(token_ids, batch, cache)
        except Exception as error:
            raise self._lost(error) from error

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        try:
            self._send(Logits(len(hidden)))
            return self._inner.logits(self._ranks.broadcast(hidden))
        except Exception as error:
            raise self._lost(error) from error

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden]."""
        tokens: list[int] = logit_masks.apply(allowed, self.logits(hidden)).argmax(-1).tolist()
        return tokens
