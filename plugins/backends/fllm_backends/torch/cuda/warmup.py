"""Batches that run at start-up to compile the kernels and record every CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.cuda.graphs import graph_sizes


def warmup_batches(max_rows: int) -> Iterator[list[Row]]:
    """Yield decodes of every size, the largest first so that the others share its memory; then a prompt.

    All write to the first block of the cache, which is still empty.
    """
    for size in reversed(graph_sizes(max_rows)):
        yield [_row(tokens=1)] * size
    yield [_row(tokens=2)]


def _row(tokens: int) -> Row:
    return Row(
        token_ids=[0] * tokens,
        prompt_length=tokens,
        start=0,
        count=tokens,
        block_table=[0],
        sampling=SamplingParams(max_tokens=1, temperature=0.0),
        seed=0,
        sample=True,
    )
