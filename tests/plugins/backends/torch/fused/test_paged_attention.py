"""Attention of the kernels over a paged cache, against torch's on the same keys and values."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape, Pattern
from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.paged_attention import KernelAttention

BLOCK_SIZE = 2 * PANEL
HEADS = 6
LENGTHS = [70, 45, 3]
ENDS = [[30, 68, 69, 70], [44, 45], [3]]
"""Where the passes over each row end."""
CPU = torch.device("cpu")


def row(index: int, start: int, end: int) -> Row:
    return Row(
        token_ids=[0] * LENGTHS[index], prompt_length=1, start=start, count=end - start, seed=0, sample=True,
        block_table=[3 * block + index for block in range(3)], sampling=SamplingParams(max_tokens=1),
    )  # fmt: skip


def batches() -> list[list[Row]]:
    steps = [[row(index, *ends) for ends in pairwise([0, *ENDS[index]])] for index in range(3)]
    return [[each[step] for each in steps if step < len(each)] for step in range(4)]


def halves(*shape: int) -> Tensor:
    return torch.randn(shape).half().float()


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        (KVShape(6, 32, 32), Pattern()),
        (KVShape(2, 64, 64), Pattern(window=21, scale=0.3)),
        (KVShape(1, 48, 24), Pattern(chunk=16, softcap=2.0)),
        (KVShape(3, 48, 48), Pattern(sinks=torch.linspace(-2, 3, HEADS))),
        (KVShape(2, 32, 32), Pattern(window=9, sinks=torch.linspace(3, -2, HEADS), softcap=5.0)),
    ],
)
def test_kernels_attend_as_torch_does(shape: KVShape, pattern: Pattern) -> None:
    torch.manual_seed(0)
    kernels = KernelAttention(KernelThreads(2))
    assert kernels.support([shape], [pattern])
    plain = KVCache([shape], 9, BLOCK_SIZE, like=torch.empty(0))
    paged = KVCache(kernels.padded([shape]), 9, BLOCK_SIZE, like=torch.empty(0, dtype=torch.float16))
    for rows in batches():
        tokens = sum(each.count for each in rows)
        query = torch.randn(tokens, HEADS, shape.key_dim)
        key, value = (halves(tokens, shape.kv_heads, dim) for dim in (shape.key_dim, shape.value_dim))
        batch = AttentionBatch(rows, BLOCK_SIZE, CPU)
        plain.write(0, batch.slots, key, value)
        expected = batch.attend(query, *plain.layer(0), pattern)
        kernels.start()
        actual = kernels.attend(0, pattern, query, (key, value), paged.layer(0), batch)
        torch.testing.assert_close(actual[..., : shape.value_dim], expected, rtol=0, atol=2e-5)
        assert not actual[..., shape.value_dim :].any()
        stored = kernels.read(paged.layer(0), batch.slots, shape)
        torch.testing.assert_close(stored, [key, value], rtol=0, atol=0)
        again = kernels.attend(0, pattern, query, None, paged.layer(0), batch)
        assert torch.equal(again, actual), "a layer that shares the cache stores nothing"


def test_a_row_has_the_same_result_to_the_bit_in_any_batch() -> None:
    shape = KVShape(2, 32, 32)
    kernels = KernelAttention(KernelThreads(2))
    cache = KVCache([shape], 9, BLOCK_SIZE, like=torch.empty(0, dtype=torch.float16)).layer(0)
    everything = AttentionBatch([row(index, 0, LENGTHS[index]) for index in range(3)], BLOCK_SIZE, CPU)
    kernels.write(cache, everything.slots, (halves(118, 2, 32), halves(118, 2, 32)))
    query = torch.randn(3, HEADS, 32)
    rows = [row(index, LENGTHS[index] - 1, LENGTHS[index]) for index in range(3)]
    together = kernels.attend(0, Pattern(), query, None, cache, AttentionBatch(rows, BLOCK_SIZE, CPU))
    for index, each in enumerate(rows):
        kernels.start()
        alone = kernels.attend(
            0, Pattern(), query[index : index + 1], None, cache, AttentionBatch([each], BLOCK_SIZE, CPU)
        )
        assert torch.equal(alone[0], together[index])


def test_heads_that_padding_would_make_much_larger_are_left_to_torch() -> None:
    kernels = KernelAttention(KernelThreads(1))
    assert not kernels.support([KVShape(2, 8, 8)], [Pattern()])
    assert not kernels.support([KVShape(2, 32, 32)], [Pattern(window=4, chunk=8)])
    assert not kernels.support([], [])


def test_keys_and_values_beyond_float16_stay_finite_and_harm_no_sequence_that_reuses_their_pages() -> None:
    shape, pattern = KVShape(2, 32, 32), Pattern()
    kernels = KernelAttention(KernelThreads(1))
    cache = KVCache([shape], 9, BLOCK_SIZE, like=torch.empty(0, dtype=torch.float16)).layer(0)
    batch = AttentionBatch([row(0, 0, 30)], BLOCK_SIZE, CPU)
    large = torch.tensor([1e5, -1e6, torch.inf, torch.nan]).repeat(30, 2, 8)
    kernels.attend(0, pattern, torch.randn(30, HEADS, 32), (large, large), cache, batch)
    expected = torch.tensor([65504.0, -65504.0, 65504.0, 65504.0]).repeat(30, 2, 8)
    assert all(torch.equal(part, expected) for part in kernels.read(cache, batch.slots, shape))
    kernels.write(cache, batch.slots, (large, large))
    assert all(torch.equal(part, expected) for part in kernels.read(cache, batch.slots, shape))
    again = AttentionBatch([row(0, 0, 3)], BLOCK_SIZE, CPU)
    new = halves(3, 2, 32), halves(3, 2, 32)
    kernels.start()
    attended = kernels.attend(0, pattern, torch.randn(3, HEADS, 32), new, cache, again)
    assert attended.abs().max() <= new[1].abs().max()
