"""A fake runner whose blocks can be copied, as those of a real one can."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from support.fake_runner import FakeRunner

from fllm.batching import KVFormat


class OffloadRunner(FakeRunner):
    """Implements `MovesBlocks`. ``weights`` names its model."""

    weights = "w1"
    reads = 0
    """Number of blocks that were read."""

    def kv_format(self) -> KVFormat:
        return KVFormat(block_bytes=8 * self._block_size, identity={"model": self.weights})

    def read_blocks(self, blocks: Sequence[int]) -> list[bytes]:
        self.reads += len(blocks)
        return [array("q", self._slots[block]).tobytes() for block in blocks]

    def write_blocks(self, blocks: Sequence[int], data: Sequence[bytes | memoryview]) -> None:
        for block, content in zip(blocks, data, strict=True):
            self._slots[block] = array("q", bytes(content)).tolist()
