"""The KV cache as a pool of blocks, which sequences with the same tokens share.

Every block is in one of three states:

- in use: at least one block table references it;
- cached: no block table references it, but its hash still finds it;
- empty: neither of the two.

Both cached and empty blocks are free. Empty blocks are allocated first, then the cached block that was used
least recently.
"""

from __future__ import annotations

from collections import OrderedDict, abc

from fllm.batching.block_hashes import hash_namespace, request_namespace
from fllm.values import CacheChanges, GenerateRequest


class BlockPool:
    """Allocates the blocks of a KV cache and counts their references. Every operation on a block is O(1)."""

    def __init__(
        self, num_blocks: int, block_size: int, *, enable_caching: bool = True, share_blocks: bool = True
    ) -> None:
        """Create an empty pool. ``share_blocks=False``: no sequence ever uses a block of another."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._enable_caching = enable_caching and share_blocks
        self._share_blocks = share_blocks
        self._ref_counts = [0] * num_blocks
        self._empty = list(reversed(range(num_blocks)))
        self._cached: OrderedDict[int, None] = OrderedDict()
        """Least recently used first."""
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._changes: dict[bytes, bool] | None = None
        """Whether each hash that has changed can be found now; ``None``: changes are not recorded."""
        self._evicted: list[tuple[int, bytes]] | None = None

    @property
    def num_free(self) -> int:
        """Number of blocks without references."""
        return len(self._empty) + len(self._cached)

    def namespace(self, request: GenerateRequest) -> tuple[bytes, int]:
        """Return what the hashes of a request's blocks begin with, and how many tokens are outside of that.

        Without caching, only the sequences of one request share blocks.
        """
        if not self._enable_caching:
            return hash_namespace(request.group or request.request_id), 0
        return request_namespace(request)

    def find_cached(self, block_hashes: abc.Iterable[bytes]) -> list[int]:
        """Return the blocks with these hashes, up to the first hash that is not found."""
        blocks: list[int] = []
        for block_hash in block_hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def can_allocate(self, count: int, reused: abc.Iterable[int] = ()) -> bool:
        """Return whether ``count`` blocks are free in addition to the ``reused`` ones."""
        return count <= self.num_free - sum(not self._ref_counts[block] for block in reused)

    def allocate(self, count: int) -> list[int]:
        """Return ``count`` blocks with one reference each. Call it only if `can_allocate` allows it."""
        return [self._allocate() for _ in range(count)]

    def ref(self, blocks: abc.Iterable[int]) -> None:
        """Add a reference to each of the blocks."""
        for block in blocks:
            self._cached.pop(block, None)
            self._ref_counts[block] += 1

    def free(self, blocks: abc.Sequence[int]) -> None:
        """Drop the references of a block table, the last block first.

        So a prefix stays cached for longer than the blocks that follow it.
        """
        for block in reversed(blocks):
            self._ref_counts[block] -= 1
            if not self._ref_counts[block]:
                self._release(block)

    def cache(self, block: int, block_hash: bytes) -> None:
        """Make a block in use findable by its hash, unless another block with that hash already is."""
        if self._share_blocks and block_hash not in self._block_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash
            if self._changes is not None:
                self._changes[block_hash] = True

    def evict(self, block: int) -> None:
        """Remove a block's hash, because its content is invalid or about to be overwritten."""
        block_hash = self._hash_of.pop(block, None)
        if block_hash is not None:
            del self._block_of[block_hash]
            if self._changes is not None:
                self._changes[block_hash] = False

    def record_changes(self) -> None:
        """Record from now on which hashes are added and removed, and those that are there as added."""
        if self._enable_caching:
            self._changes = dict.fromkeys(self._block_of, True)

    def take_changes(self) -> CacheChanges | None:
        """Return what has changed since the last call, or ``None`` if nothing has."""
        if not self._changes:
            return None
        changes, self._changes = self._changes, {}
        gained = [block_hash for block_hash, found in changes.items() if found]
        return CacheChanges(gained=gained, lost=[each for each, found in changes.items() if not found])

    def record_evicted(self) -> None:
        """Record from now on the blocks that are evicted to make room, for `take_evicted`."""
        self._evicted = []

    def take_evicted(self) -> list[tuple[int, bytes]]:
        """Return the blocks evicted to make room since the last call, with their hashes.

        Their content is valid until the next batch.
        """
        evicted, self._evicted = self._evicted or [], []
        return evicted

    def idle_hashes(self) -> abc.Iterator[bytes]:
        """Yield the hashes of the cached blocks, the least recently used first."""
        return (self._hash_of[block] for block in self._cached)

    def _allocate(self) -> int:
        if self._empty:
            block = self._empty.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            if self._evicted is not None:
                self._evicted.append((block, self._hash_of[block]))
            self.evict(block)
        self._ref_counts[block] = 1
        return block

    def _release(self, block: int) -> None:
        """Put a block without references where `_allocate` finds it."""
        if not self._enable_caching:
            self.evict(block)
        if block in self._hash_of:
            self._cached[block] = None
        else:
            self._empty.append(block)
