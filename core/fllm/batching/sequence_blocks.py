"""The KV blocks of sequences: allocated, filled, found in the prefix cache, or copied from its tiers.

Terms:

- KV live in *blocks* of a fixed number of tokens. A sequence's *block table* lists its blocks in order.
- The *prefix cache* finds full blocks that already hold the same tokens.
- *Tiers* in RAM and on disk hold blocks that left the prefix cache (`fllm.batching.kv_offload`).
"""

from __future__ import annotations

from fllm.batching.block_pool import BlockPool
from fllm.batching.kv_offload import Found, KVOffload
from fllm.batching.sequence import Sequence
from fllm.values import CacheTierStats, GenerateRequest


class SequenceBlocks:
    """Fills the block tables of sequences, from a pool and the tiers below it."""

    def __init__(self, pool: BlockPool, offload: KVOffload | None = None) -> None:
        self._pool = pool
        self._offload = offload
        if offload is not None:
            pool.record_evicted()

    @property
    def capacity(self) -> int:
        """Number of tokens that all blocks hold."""
        return self._pool.num_blocks * self._pool.block_size

    @property
    def count(self) -> int:
        """Number of all blocks."""
        return self._pool.num_blocks

    @property
    def used(self) -> int:
        """Number of blocks in block tables."""
        return self._pool.num_blocks - self._pool.num_free

    def tier_stats(self) -> dict[str, CacheTierStats]:
        """Return the totals of each tier. Any thread may call this."""
        return {} if self._offload is None else self._offload.stats()

    def namespace(self, request: GenerateRequest) -> tuple[bytes, int]:
        """Return what the hashes of a request's blocks begin with, and how many tokens come before that."""
        return self._pool.namespace(request)

    def allocate(self, sequence: Sequence) -> bool:
        """Allocate blocks for all tokens of a waiting sequence, or return False if too few are free."""
        cached = self._find_cached(sequence)
        missing = self._num_blocks(sequence.length) - len(cached)
        if not self._pool.can_allocate(missing, cached):
            return False
        self._pool.ref(cached)
        sequence.block_table = cached + self._pool.allocate(missing)
        sequence.computed = len(cached) * self._pool.block_size
        return True

    def append(self, sequence: Sequence, drafts: int = 0) -> bool:
        """Add blocks for all tokens of a sequence and its drafts, or return False if too few are free.

        Earlier drafts may have left some.
        """
        missing = self._num_blocks(sequence.length + drafts) - len(sequence.block_table)
        if missing <= 0:
            return True
        if not self._pool.can_allocate(missing):
            return False
        sequence.block_table += self._pool.allocate(missing)
        return True

    def room(self, sequence: Sequence, reserved: int) -> int:
        """Return how many tokens fit after those of a sequence, if ``reserved`` blocks remain free."""
        blocks = len(sequence.block_table) + max(self._pool.num_free - reserved, 0)
        return blocks * self._pool.block_size - sequence.length

    def free(self, sequence: Sequence) -> None:
        """Drop the blocks of a sequence: none of its tokens has KV any more."""
        sequence.fetch = None
        self._pool.free(sequence.block_table)
        sequence.block_table = []
        sequence.computed = 0

    def reuse_cached(self, sequence: Sequence) -> None:
        """Replace blocks that are not filled yet by blocks that others have filled with the same tokens."""
        cached = self._find_cached(sequence)
        start = sequence.computed // self._pool.block_size
        end = start + len(cached)
        if cached:
            self._pool.ref(cached)
            self._pool.free(sequence.block_table[start:end])
            sequence.block_table[start:end] = cached
            sequence.computed = end * self._pool.block_size

    def fetch(self, sequence: Sequence) -> bool:
        """Find the blocks of a sequence in the tiers. Return whether it should wait for the disk."""
        if self._offload is None or sequence.adapter:
            return False
        sequence.looked_up = True
        size = self._pool.block_size
        hashes = sequence.hash_blocks(sequence.first_needed // size, size)
        sequence.fetch = self._offload.fetch(hashes, self._pool, size)
        return not sequence.fetch.done

    def has_fetched(self, sequence: Sequence) -> bool:
        """Return whether the blocks that a sequence waits for are there, or took too long."""
        return bool(self._offload and sequence.fetch and self._offload.expired(sequence.fetch))

    def restore(self, sequence: Sequence) -> None:
        """Copy blocks with the same tokens from the tiers; between them, reuse those of the pool."""
        if self._offload is None:
            return
        size, start = self._pool.block_size, sequence.computed // self._pool.block_size
        found: list[int | Found] = []
        for block_hash in sequence.hash_blocks(sequence.first_needed // size, size)[start:]:
            [*cached] = self._pool.find_cached([block_hash])
            each = cached[0] if cached else self._offload.find(block_hash, sequence.fetch)
            if each is None:
                break
            found.append(each)
        sequence.fetch = None
        if (start + len(found)) * size < max(sequence.first_row_end, sequence.computed + 1):
            return
        table = sequence.block_table
        copied = [(table[index], each) for index, each in enumerate(found, start) if isinstance(each, Found)]
        if not self._offload.restore(copied, size):
            return
        for index, each in enumerate(found, start):
            if isinstance(each, Found):
                self._pool.cache(table[index], sequence.block_hashes[index])
            else:
                self._pool.ref([each])
                self._pool.free([table[index]])
                table[index] = each
        sequence.computed = (start + len(found)) * size

    def cache_full(self, sequence: Sequence, start: int, end: int) -> None:
        """Add the blocks that a row with tokens ``start`` to ``end`` fills to the prefix cache.

        So the next row can reuse them. They are not computed yet, but the runner writes the KV of all rows
        before any row reads.
        """
        size = self._pool.block_size
        if start // size < end // size:
            block_hashes = sequence.hash_blocks(end // size, size)
            for index in range(start // size, end // size):
                self._pool.cache(sequence.block_table[index], block_hashes[index])
            if self._offload is not None and sequence.adapter:
                self._offload.exclude(block_hashes[start // size :])

    def save_evicted(self) -> None:
        """Copy evicted blocks to the tiers, before a step writes others in their place."""
        if self._offload is not None:
            self._offload.save_evicted(self._pool)

    def evict(self, sequence: Sequence, start: int) -> None:
        """Remove the blocks with the tokens from ``start`` on from the prefix cache."""
        for block in sequence.block_table[start // self._pool.block_size :]:
            self._pool.evict(block)

    def _find_cached(self, sequence: Sequence) -> list[int]:
        """Return the cached blocks that hold the tokens of the sequence after those computed.

        The last token is always computed, cached or not: without it there are no logits to sample from.
        """
        size = self._pool.block_size
        block_hashes = sequence.hash_blocks(sequence.first_needed // size, size)
        cached = self._pool.find_cached(block_hashes[sequence.computed // size :])
        return cached if sequence.computed + len(cached) * size >= sequence.first_row_end else []

    def _num_blocks(self, tokens: int) -> int:
        return -(-tokens // self._pool.block_size)
