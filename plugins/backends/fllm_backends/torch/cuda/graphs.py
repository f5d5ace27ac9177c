"""Decode steps, recorded once for each size of batch and then replayed as a whole.

A step of one new token for each row is hundreds of small kernels. Recorded as a CUDA graph they cost one
call. A graph reads and writes fixed memory and has a fixed size: batches are filled up to the next size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

from fllm_backends.torch.cuda.batch import Batch, HostBatch

Replay = Callable[[], Tensor]
Recorder = Callable[[Replay], Replay]
"""Runs a function in a way that can be repeated; its result then lies where it lay."""

_STEP = 16


def sizes(largest: int) -> list[int]:
    """Rows of the graphs: powers of 2, then multiples of 16, so that few rows are computed for nothing."""
    small = [size for size in (1, 2, 4, 8) if size < largest]
    return [*small, *range(_STEP, largest, _STEP), largest]


class DecodeGraphs:
    """One graph for each size, recorded when it is first needed; all read one buffer."""

    def __init__(
        self, compute: Callable[[Batch], Tensor], record: Recorder, buffer: Tensor, largest: int
    ) -> None:
        self._compute = compute
        self._record = record
        self._buffer = buffer
        self._sizes = sizes(largest)
        self._replays: dict[int, Replay] = {}

    def takes(self, batch: HostBatch) -> bool:
        """Whether all of its rows decode, and are not too many."""
        return not len(batch.tiles) and len(batch.tokens) <= self._sizes[-1]

    def run(self, batch: HostBatch) -> Tensor:
        """Hidden states: [rows, hidden]. They lie there until the next batch."""
        rows = len(batch.tokens)
        size = self._sizes[bisect_left(self._sizes, rows)]
        padded = batch.padded(size)
        packed = padded.pack(pinned=self._buffer.is_cuda)
        self._buffer[: len(packed)].copy_(packed, non_blocking=True)
        if size not in self._replays:
            view = padded.view(self._buffer)
            self._replays[size] = self._record(lambda: self._compute(view))
        return self._replays[size]()[:rows]


class GraphRecorder:
    """Records CUDA graphs, which share their memory: no two of them run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Replay) -> Replay:
        """Run once, so that kernels are compiled and libraries are set up; then record."""
        function()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = function()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
