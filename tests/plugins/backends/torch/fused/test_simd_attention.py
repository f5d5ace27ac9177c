"""The inner loops of attention in the instructions of every kind of processor that this one can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.kernel_results import page_addresses, run

from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.simd_attention import (
    STATE,
    CacheType,
    block_scores,
    block_values,
    block_weights,
    cache_shapes,
    soft_cap,
)
from fllm_backends.torch.fused.simd_builder import simd_function
from fllm_backends.torch.fused.target import Target, targets

PAGES = 4
KINDS = [
    (target, kind)
    for target in targets()
    for kind in (CacheType.HALF, CacheType.BFLOAT)
    if target.bfloat or kind is CacheType.HALF
]
on_every_target = pytest.mark.parametrize(("target", "kind"), KINDS, ids=str)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Return random numbers that bfloat16 holds, so that no kernel rounds them."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def stored(values: np.ndarray, kind: CacheType) -> np.ndarray:
    """Return what the kernels read: float32 or bfloat16."""
    return values if kind is CacheType.HALF else (values.view(np.uint32) >> 16).astype(np.uint16)


def paged(values: np.ndarray, kind: CacheType) -> tuple[np.ndarray, np.ndarray]:
    """Return [tokens, dim] numbers as keys and as values of pages."""
    pages, dim = len(values) // PANEL, values.shape[1]
    whole = values.reshape(pages, PANEL, dim)
    if kind is CacheType.HALF:
        return np.ascontiguousarray(whole.transpose(0, 2, 1).astype(np.float16)), whole.astype(np.float16)
    bits = stored(whole, kind)
    keys = bits.reshape(pages, PANEL, dim // 2, 2).transpose(0, 2, 1, 3)
    mixed = bits.reshape(pages, PANEL // 2, 2, dim).transpose(0, 1, 3, 2)
    shapes = cache_shapes(kind, dim, dim)
    return tuple(
        np.ascontiguousarray(part).reshape(-1, *s) for part, s in zip((keys, mixed), shapes, strict=True)
    )


def emitted(part: Any, target: Target, rows: int, kind: CacheType) -> Any:
    return simd_function(target.width)(part(target, rows, kind))


@on_every_target
@pytest.mark.parametrize("rows", [4, 8])
def test_scores(target: Target, kind: CacheType, rows: int) -> None:
    queries, tokens = numbers(rows, 96), numbers(PAGES * PANEL, 96, seed=1)
    keys, _ = paged(tokens, kind)
    out = np.zeros((rows, 80), np.float32)
    kernel = emitted(block_scores, target, rows, kind)
    run(kernel, stored(queries, kind), 96, page_addresses(keys), PAGES, out, 320)
    np.testing.assert_allclose(out[:, : len(tokens)], queries @ tokens.T, rtol=1e-3, atol=1e-3)
    assert not out[:, len(tokens) :].any()


@on_every_target
@pytest.mark.parametrize("rows", [4, 8])
def test_values_are_added_to_what_is_there_times_its_factor(
    target: Target, kind: CacheType, rows: int
) -> None:
    weights, tokens = numbers(rows, PAGES * PANEL), numbers(PAGES * PANEL, 96, seed=1)
    _, values = paged(tokens, kind)
    out, states = numbers(rows, 96, seed=2), np.zeros((rows, STATE), np.float32)
    states[:, 2] = np.arange(rows)
    expected = out * states[:, 2:3] + weights @ tokens
    given = stored(weights, kind)
    run(
        emitted(block_values, target, rows, kind),
        given,
        given[0].nbytes,
        page_addresses(values),
        PAGES,
        96,
        states,
        out,
    )
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3)


@on_every_target
def test_weights_of_blocks_are_those_of_one_softmax(target: Target, kind: CacheType) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32) * 20
    scores[0], scores[1, 40:] = -np.inf, -np.inf
    state, total = np.array([-1e30, 0, 0, 0], np.float32), np.zeros(1)
    out = np.empty(64, np.float32 if kind is CacheType.HALF else np.uint16)
    kernel = emitted(block_weights, target, 1, kind)
    for block in scores:
        run(kernel, block, len(block), state, out)
        whole = out if kind is CacheType.HALF else (out.astype(np.uint32) << 16).view(np.float32)
        total = total * state[2] + whole.sum(dtype=np.float64)
        assert not whole[block == -np.inf].any()
    exact = np.exp(scores.astype(np.float64) - scores.max()).sum()
    assert state[0] == scores.max()
    np.testing.assert_allclose([state[1], total[0]], exact, rtol=1e-6 if kind is CacheType.HALF else 4e-3)


@on_every_target
def test_a_masked_block_changes_no_bit(target: Target, kind: CacheType) -> None:
    kernel = emitted(block_weights, target, 1, kind)
    state = np.array([1.5, 2.25, 0, 0], np.float32)
    out = np.empty(64, np.float32 if kind is CacheType.HALF else np.uint16)
    run(kernel, np.full(64, -np.inf, np.float32), 64, state, out)
    assert state.tolist() == [1.5, 2.25, 1.0, 0.0]
    assert not out.any()


@pytest.mark.parametrize("target", targets(), ids=str)
def test_scores_are_capped(target: Target) -> None:
    scores = np.random.default_rng(0).normal(size=2 * PANEL).astype(np.float32) * 30
    scores[0] = 1e4
    expected = 5 * np.tanh(scores.astype(np.float64) / 5)
    run(soft_cap(target), scores, len(scores), np.full(1, 5, np.float32))
    np.testing.assert_allclose(scores, expected, atol=2e-6)
