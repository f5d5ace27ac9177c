"""Record decode steps as CUDA graphs, one for each batch size, and replay them.

A step with one new token for each row is hundreds of small kernels; as a CUDA graph it is one call. A graph
reads and writes fixed memory and has a fixed size, so batches are padded to the next size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

from fllm_backends.torch.cuda.batch import Batch, HostBatch

Replay = Callable[[], Tensor]
Recorder = Callable[[Replay], Replay]
"""Runs a function and returns one that repeats it and writes to the same result."""

_STEP = 16


def graph_sizes(largest: int) -> list[int]:
    """Return the batch sizes of the graphs.

    Powers of 2, then multiples of 16, so that little padding is computed.
    """
    small = [size for size in (1, 2, 4, 8) if size < largest]
    return [*small, *range(_STEP, largest, _STEP), largest]


class DecodeGraphs:
    """One graph for each batch size, recorded when it is first needed. All read the same buffer."""

    def __init__(
        self, compute: Callable[[Batch], Tensor], record: Recorder, buffer: Tensor, largest: int
    ) -> None:
        self._compute = compute
        self._record = record
        self._buffer = buffer
        self._sizes = graph_sizes(largest)
        self._replays: dict[int, Replay] = {}

    def can_run(self, batch: HostBatch) -> bool:
        """Return whether all rows of the batch are decodes, and not too many."""
        return not len(batch.tiles) and len(batch.tokens) <= self._sizes[-1]

    def run(self, batch: HostBatch) -> Tensor:
        """Return the hidden states: [rows, hidden]. The next batch overwrites them."""
        rows = len(batch.tokens)
        size = self._sizes[bisect_left(self._sizes, rows)]
        padded = batch.padded_to(size)
        packed = padded.pack(pinned=self._buffer.is_cuda)
        self._buffer[: len(packed)].copy_(packed, non_blocking=True)
        if size not in self._replays:
            view = padded.view(self._buffer)
            self._replays[size] = self._record(lambda: self._compute(view))
        return self._replays[size]()[:rows]


class GraphRecorder:
    """Records CUDA graphs in one memory pool, because no two of them run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Replay) -> Replay:
        """Run the function once, which compiles kernels and initialises libraries; then record it."""
        function()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = function()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
