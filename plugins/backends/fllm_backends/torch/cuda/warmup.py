"""Batches that a start runs before anybody waits: they compile the kernels and record every graph."""

from __future__ import annotations

from collections.abc import Iterator

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.cuda.graphs import sizes


def rehearsal(max_rows: int) -> Iterator[list[Row]]:
    """Decodes of every size, the largest first, whose memory the others then share; and a short prompt.

    All write to the first block of a cache in which nothing lies yet.
    """
    for size in reversed(sizes(max_rows)):
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
