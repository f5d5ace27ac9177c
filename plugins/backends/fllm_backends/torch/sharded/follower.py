"""What a rank other than 0 does in each step."""

from __future__ import annotations

from torch import Tensor

from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.model import Decoder
from fllm_backends.torch.ranks import Ranks
from fllm_backends.torch.sharded.batch_parts import BatchDecoder
from fllm_backends.torch.sharded.messages import Forward


class Follower:
    """Runs the calls of `LeadingDecoder` on the decoder of its rank."""

    def __init__(self, decoder: Decoder, cache: KVCache, ranks: Ranks) -> None:
        self._decoder = decoder
        self._cache = cache
        self._ranks = ranks
        self._batches = BatchDecoder()
        self._hidden: Tensor | None = None

    def forward(self, message: Forward) -> None:
        """Run a forward pass."""
        token_ids, rows = self._batches.decode(message)
        batch = AttentionBatch(rows, self._cache.block_size, self._decoder.device)
        self._hidden = self._decoder.forward(token_ids, batch, self._cache)

    def logits(self, count: int) -> None:
        """Compute this rank's part of the logits of ``count`` hidden states, which rank 0 broadcasts."""
        assert self._hidden is not None, "logits follow a forward pass"
        hidden = self._hidden.new_empty(count, self._hidden.shape[1])
        self._decoder.logits(self._ranks.broadcast(hidden))
