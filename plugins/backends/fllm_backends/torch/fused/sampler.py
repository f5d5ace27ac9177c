"""Sample the next tokens on the kernels, as `single_row_sampler.draw_token` does.

The weights of a row are e^((logit - maximum) / temperature). Only the largest are sorted: those above a
threshold, which is lowered until they are enough for ``top_k`` or ``top_p``. A row is computed by one thread,
so its token does not depend on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fllm.batching.runner import Row
from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.arrays import Integers
from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import compile_lock, kernel
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.padding import round_up
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase
from fllm_backends.torch.sampler import draw_quantile

BLOCK = 256
"""Number of tokens whose weights are added up before they are searched."""
THRESHOLD_STEP = 1 / 16
"""Part of the largest weight that the first candidates have at least, and what lowers it further."""
LAST_THRESHOLD = 1e-30
"""Below this, all tokens become candidates."""

ROWS_PER_THREAD = 4
"""Number of rows for which another thread is woken, which takes as long as one of them."""

softmax = simd_kernels.softmax(TARGET)
single = np.float32
EXACT_MAXIMUM = frozenset({"nnan", "nsz", "reassoc"})


@kernel(fastmath=False)
def copy_allowed(logits: Any, masks: Any, row: Any, weights: Any) -> None:
    """Copy a row of logits, with -infinity for tokens that it may not choose, and as padding."""
    size = logits.shape[1]
    for i in range(size):
        weights[i] = logits[row, i]
    if masks.shape[0]:
        for i in range(size):
            if not masks[row, i // 32] >> i % 32 & 1:
                weights[i] = -np.inf
    weights[size:] = -np.inf


@kernel(fastmath=EXACT_MAXIMUM)
def greatest(values: Any) -> Any:
    """Return the greatest value."""
    found = values[0]
    for i in range(len(values)):
        found = max(found, values[i])
    return found


@kernel(fastmath=False)
def scale(weights: Any, largest: Any, temperature: Any, least: Any) -> None:
    """Compute ``(logit - largest) / temperature`` in place; what is below ``least`` becomes -infinity."""
    for i in range(len(weights)):
        value = (weights[i] - largest) / temperature
        weights[i] = value if value >= least else single(-np.inf)


@kernel()
def add_up(weights: Any) -> Any:
    """Return the sum, in float64."""
    total = 0.0
    for i in range(len(weights)):
        total += np.float64(weights[i])
    return total


@kernel(fastmath=False)
def find_quantile(weights: Any, sums: Any, target: Any) -> Any:
    """Return the first token up to which the weights exceed ``target``; ``sums`` are those of blocks."""
    passed, last = 0.0, 0
    for block in range(len(sums)):
        if passed + sums[block] <= target:
            passed += sums[block]
            continue
        for i in range(block * BLOCK, min((block + 1) * BLOCK, len(weights))):
            passed += np.float64(weights[i])
            if weights[i] > single(0):
                last = i
            if passed > target:
                return i
    return last


@kernel(fastmath=False)
def find_candidates(weights: Any, sums: Any, threshold: Any, heap: Any) -> Any:
    """Put the tokens with at least this weight into ``heap``; return their number and their weight."""
    count, mass = 0, 0.0
    for block in range(len(sums)):
        if sums[block] * 1.000001 < threshold:  # the sum is rounded
            continue
        for i in range(block * BLOCK, min((block + 1) * BLOCK, len(weights))):
            if weights[i] >= threshold and weights[i] > single(0):
                heap[count] = i
                count += 1
                mass += np.float64(weights[i])
    return count, mass


@kernel(fastmath=False)
def precedes(weights: Any, one: Any, other: Any) -> Any:
    """Return whether a token has a greater weight than another, or the same and a smaller id."""
    return weights[one] > weights[other] or (weights[one] == weights[other] and one < other)


@kernel(fastmath=False)
def sift_down(weights: Any, heap: Any, place: Any, count: Any) -> None:
    """Move a token down in a heap of ``count`` tokens, whose first one precedes all others."""
    token = heap[place]
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and precedes(weights, heap[child + 1], heap[child]):
            child += 1
        if not precedes(weights, heap[child], token):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = token


@kernel(fastmath=False)
def draw_candidate(
    weights: Any, sums: Any, total: Any, limit: Any, top_p: Any, quantile: Any, heap: Any
) -> Any:
    """Return the token at ``quantile`` of the ``limit`` most likely ones, and of those within ``top_p``."""
    threshold = single(THRESHOLD_STEP)
    while True:
        count, mass = find_candidates(weights, sums, threshold, heap)
        enough = count >= limit or (limit >= len(weights) and mass >= top_p * total)
        if enough or threshold == single(0):
            break
        threshold = threshold * single(THRESHOLD_STEP) if threshold > single(LAST_THRESHOLD) else single(0)
    for place in range(count // 2 - 1, -1, -1):
        sift_down(weights, heap, place, count)
    # The tokens leave the heap in order, to the end of its array.
    taken, kept = 0, 0.0
    while taken < min(count, limit) and (taken == 0 or limit < len(weights) or kept < top_p * total):
        first, last = heap[0], count - 1 - taken
        heap[0] = heap[last]
        heap[last] = first
        sift_down(weights, heap, 0, last)
        taken += 1
        kept += np.float64(weights[first])
    if limit < len(weights):  # top_p refers to what is within top_k
        whole, kept, within = kept, 0.0, 0
        while within < taken and (within == 0 or kept < top_p * whole):
            kept += np.float64(weights[heap[count - 1 - within]])
            within += 1
        taken = within
    passed = 0.0
    for i in range(taken):
        passed += np.float64(weights[heap[count - 1 - i]])
        if passed > quantile * kept:
            return heap[count - 1 - i]
    return heap[count - taken]


@kernel(fastmath=False)
def sample_row(logits: Any, masks: Any, row: Any, draw: Any, weights: Any, sums: Any, heap: Any) -> Any:
    """Return the token of one row. ``draw`` is that of `_draw`."""
    copy_allowed(logits, masks, row, weights)
    largest = greatest(weights)
    if draw[0] == 0 or not largest > single(-np.inf):
        for i in range(logits.shape[1]):
            if weights[i] == largest:
                return np.int64(i)
        return np.int64(0)
    scale(weights, largest, single(draw[0]), single(draw[1]))
    softmax((address(weights), len(weights), address(sums)))
    total = 0.0
    for block in range(len(sums)):
        sums[block] = add_up(weights[block * BLOCK : (block + 1) * BLOCK])
        total += sums[block]
    if draw[2] == 0 and draw[3] >= 1:
        return np.int64(find_quantile(weights, sums, draw[4] * total))
    limit = np.int64(draw[2]) if draw[2] > 0 else len(weights)
    return np.int64(draw_candidate(weights, sums, total, limit, draw[3], draw[4], heap))


@kernel(fastmath=False)
def sample_rows(
    team: Any, logits: Any, masks: Any, draws: Any, weights: Any, sums: Any, heaps: Any, tokens: Any
) -> None:
    """Write the token of each row of [rows, vocabulary] logits to ``tokens``."""
    thread, completed = team.thread, 0
    while True:
        row = claim_piece(team, 0)
        if row >= len(tokens):
            break
        completed += 1
        tokens[row] = sample_row(logits, masks, row, draws[row], weights[thread], sums[thread], heaps[thread])
    finish_phase(team, 0, completed, len(tokens))


class KernelSampler:
    """Samples from logits of one size of vocabulary."""

    def __init__(self, threads: KernelThreads, vocab_size: int) -> None:
        padded = round_up(vocab_size, PANEL)
        self._threads = threads
        self._size = vocab_size
        self._weights: Floats = np.empty((threads.count, padded), np.float32)
        self._sums = np.empty((threads.count, -(-padded // BLOCK)), np.float64)
        self._heaps: NDArray[np.int32] = np.empty((threads.count, padded), np.int32)

    def compile(self) -> None:
        """Compile the kernel, or load what an earlier start has compiled."""
        masks, tokens = np.empty((0, 0), np.int32), np.empty(0, np.int64)
        self._run(np.empty((0, self._size), np.float32), masks, np.empty((0, 5)), tokens)

    def sample(self, rows: Sequence[Row], logits: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the next token of each row of [rows, vocabulary] float32 logits.

        ``allowed`` is [rows, words] with a bit for each token; ``None`` allows all.
        """
        masks = np.empty((0, 0), np.int32) if allowed is None else allowed.numpy()
        draws = np.array([self._draw(row) for row in rows])
        tokens: Integers = np.empty(len(rows), np.int64)
        self._run(logits.contiguous().numpy(), masks, draws, tokens)
        found: list[int] = tokens.tolist()
        return found

    def _run(self, logits: Floats, masks: NDArray[np.int32], draws: NDArray[Any], tokens: Integers) -> None:
        buffers = self._weights, self._sums, self._heaps
        pieces = -(-len(tokens) // ROWS_PER_THREAD)
        self._threads.run(sample_rows, 1, logits, masks, draws, *buffers, tokens, pieces=pieces)

    def _draw(self, row: Row) -> tuple[float, float, float, float, float]:
        """Return the temperature, the logarithm of min_p, top_k or 0, top_p, and the quantile of a row."""
        sampling = row.sampling
        top_k = sampling.top_k if 0 < sampling.top_k < self._size else 0
        least = math.log(sampling.min_p) if sampling.min_p > 0 else -math.inf
        return sampling.temperature, least, top_k, sampling.top_p, draw_quantile(row)


def compiled_sampler(threads: int, vocab_size: int) -> KernelSampler:
    """Return a sampler whose kernel is compiled."""
    sampler = KernelSampler(KernelThreads(threads), vocab_size)
    with compile_lock():
        sampler.compile()
    return sampler
