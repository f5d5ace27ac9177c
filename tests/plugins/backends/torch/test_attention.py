"""Paged attention against the textbook formula, for everything that layers do to the scores."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape, Pattern

BLOCK_SIZE = 4
HEADS, KV_HEADS, KEY_DIM, VALUE_DIM = 4, 2, 8, 6
PATTERNS = {
    "plain": Pattern(),
    "window": Pattern(window=5),
    "chunks": Pattern(chunk=6),
    "scale": Pattern(scale=0.7),
    "softcap": Pattern(softcap=1.5),
    "sinks": Pattern(sinks=torch.tensor([0.5, -1.0, 2.0, 0.0])),
    "all": Pattern(window=7, scale=0.3, softcap=2.0, sinks=torch.tensor([0.5, -1.0, 2.0, 0.0])),
}


def naive(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """[tokens, heads, dim] of one whole sequence, position by position."""
    rows = []
    for position, heads in enumerate(query):
        first = 0
        if pattern.window:
            first = max(first, position - pattern.window + 1)
        if pattern.chunk:
            first = max(first, position // pattern.chunk * pattern.chunk)
        for head, vector in enumerate(heads):
            shared = head * KV_HEADS // HEADS
            scores = keys[first : position + 1, shared] @ vector * (pattern.scale or KEY_DIM**-0.5)
            if pattern.softcap:
                scores = pattern.softcap * (scores / pattern.softcap).tanh()
            if pattern.sinks is not None:
                scores = torch.cat([scores, pattern.sinks[head : head + 1]])
            weights = scores.exp() / scores.exp().sum()
            rows.append(weights[: position + 1 - first] @ values[first : position + 1, shared])
    return torch.stack(rows).view(len(query), HEADS, VALUE_DIM)


@pytest.mark.parametrize("name", PATTERNS)
def test_rows_in_chunks_attend_as_whole_sequences_do(name: str) -> None:
    random = torch.Generator().manual_seed(1)
    lengths = [23, 17, 9]
    cache = KVCache([KVShape(1, 3, 5), KVShape(KV_HEADS, KEY_DIM, VALUE_DIM)], 20, BLOCK_SIZE, torch.empty(0))
    tables = torch.randperm(20, generator=random).tolist()
    sequences = [
        (
            torch.randn(length, HEADS, KEY_DIM, generator=random),
            torch.randn(length, KV_HEADS, KEY_DIM, generator=random),
            torch.randn(length, KV_HEADS, VALUE_DIM, generator=random),
        )
        for length in lengths
    ]
    found: list[list[torch.Tensor]] = [[], [], []]
    plan = [(7, 17, 1), *([(1, 0, 1)] * 3), (12, 0, 4), *([(1, 0, 1)] * 1)]
    done = [0, 0, 0]
    for counts in plan:
        places = [index for index in range(3) if counts[index]]
        rows = [
            Row(
                token_ids=[], prompt_length=99, start=done[index], count=counts[index],
                block_table=tables[6 * index : 6 * index + 6], sampling=SamplingParams(max_tokens=1), seed=0,
                sample=False,
            )
            for index in places
        ]  # fmt: skip
        batch = AttentionBatch(rows, BLOCK_SIZE, torch.device("cpu"))
        new = [
            torch.cat([sequences[i][part][done[i] : done[i] + counts[i]] for i in places])
            for part in range(3)
        ]
        cache.write(1, batch.slots, new[1], new[2])
        result = batch.attend(new[0], *cache.layer(1), PATTERNS[name])
        for index, piece in zip(places, result.split([counts[i] for i in places]), strict=True):
            found[index].append(piece)
            done[index] += counts[index]
    for pieces, sequence in zip(found, sequences, strict=True):
        whole = torch.cat(pieces)
        torch.testing.assert_close(whole, naive(*sequence, PATTERNS[name])[: len(whole)], rtol=0, atol=1e-5)


def test_only_layers_of_one_shape_are_one_array() -> None:
    one = KVShape(2, 4, 4)
    keys, values = KVCache([one, one], 3, BLOCK_SIZE, torch.empty(0)).arrays()
    assert keys.shape == values.shape == (2, 3 * BLOCK_SIZE, 2, 4)
    mixed = KVCache([one, replace(one, kv_heads=1)], 3, BLOCK_SIZE, torch.empty(0))
    assert [part.shape for part in mixed.layer(1)] == [(3, BLOCK_SIZE, 1, 4)] * 2
    with pytest.raises(ValueError, match="unpack"):
        mixed.arrays()
