"""The KV cache as a pool of blocks, shared by whoever has the same tokens.

A block is *held* by one or more block tables; or *idle*, held by none but found by its digest; or *blank*.
Blank blocks are given out first, then the idle one that was used least recently.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


def chain(parent: bytes, token_ids: Iterable[int]) -> bytes:
    """The digest of a full block: names its tokens and, through its parent's digest, all tokens before them.

    It is cryptographic, since whoever could make two prompts collide would read the other's KV.
    """
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=32).digest()


class BlockPool:
    """Hands out the blocks of a KV cache and counts who holds each. Every operation on a block is O(1)."""

    def __init__(self, num_blocks: int, block_size: int, *, retain: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._retain = retain
        self._holders = [0] * num_blocks
        self._blank = list(reversed(range(num_blocks)))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """How many blocks nobody holds."""
        return len(self._blank) + len(self._idle)

    def root(self, group: str) -> bytes:
        """Where chains of digests begin: at one place or, if nothing is retained, at one for each group."""
        return b"" if self._retain else chain(group.encode(), ())

    def match(self, digests: Iterable[bytes]) -> list[int]:
        """The blocks with these digests, up to the first that is not there."""
        found: list[int] = []
        for digest in digests:
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def take(self, fresh: int, shared: Sequence[int] = ()) -> list[int] | None:
        """Hold the ``shared`` blocks and so many fresh ones, in this order; ``None`` if there is no room."""
        idle = sum(not self._holders[block] for block in shared)
        if fresh > self.free - idle:
            return None
        for block in shared:
            self._hold(block)
        return [*shared, *(self._fresh() for _ in range(fresh))]

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of a block table. Its end becomes idle first, so that a prefix outlives what follows it."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if not self._holders[block]:
                self._retire(block)

    def register(self, block: int, digest: bytes) -> None:
        """Let a held block be found by its digest, unless another with the same content is found already."""
        if digest not in self._block_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest

    def forget(self, block: int) -> None:
        """Let a block be found no more: its content is void, or about to be."""
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]

    def _hold(self, block: int) -> None:
        self._idle.pop(block, None)
        self._holders[block] += 1

    def _fresh(self) -> int:
        if self._blank:
            block = self._blank.pop()
        else:
            block, _ = self._idle.popitem(last=False)
            self.forget(block)
        self._holders[block] = 1
        return block

    def _retire(self, block: int) -> None:
        if not self._retain:
            self.forget(block)
        if block in self._digest_of:
            self._idle[block] = None
        else:
            self._blank.append(block)
