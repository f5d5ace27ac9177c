"""KV blocks in RAM, the least recently used of which make room for others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

ENTRY_BYTES = 512
"""Bytes that an entry takes in addition to its data: two objects, a key and its places in the table."""


class RamTier:
    """Holds the data of blocks by their hashes. Never takes more than ``limit`` bytes, overhead included.

    Only the engine thread uses it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes of all entries."""
        self._blocks: OrderedDict[bytes, bytes] = OrderedDict()
        """Least recently used first."""

    def __contains__(self, block_hash: object) -> bool:
        return block_hash in self._blocks

    def newest_first(self) -> Iterator[bytes]:
        """Yield the hashes of all blocks, the most recently used first."""
        return reversed(self._blocks)

    def peek(self, block_hash: bytes) -> bytes | None:
        """Return a block's data, which does not count as a use."""
        return self._blocks.get(block_hash)

    def get(self, block_hash: bytes) -> bytes | None:
        """Return a block's data, which counts as a use."""
        data = self._blocks.get(block_hash)
        if data is not None:
            self._blocks.move_to_end(block_hash)
        return data

    def put(self, block_hash: bytes, data: bytes) -> list[tuple[bytes, bytes]]:
        """Add a block, and return those that had to leave: itself, if it is larger than the tier."""
        if self.get(block_hash) is not None:
            return []
        self._blocks[block_hash] = data
        self.used += len(data) + ENTRY_BYTES
        evicted: list[tuple[bytes, bytes]] = []
        while self.used > self.limit:
            oldest = self._blocks.popitem(last=False)
            self.used -= len(oldest[1]) + ENTRY_BYTES
            evicted.append(oldest)
        return evicted
