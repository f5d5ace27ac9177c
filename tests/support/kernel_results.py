"""Results of the fused CPU kernels, to compare processors. As a program, it saves those of all targets.

It needs neither torch nor pytest, so that an emulated processor runs it in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np

from fllm_backends.torch.fused import formats, simd_kernels
from fllm_backends.torch.fused.formats import FORMATS, GROUP, PANEL, Format, Scales
from fllm_backends.torch.fused.simd_attention import (
    PAGES_AHEAD,
    STATE,
    CacheType,
    block_scores,
    block_values,
    block_weights,
)
from fllm_backends.torch.fused.simd_builder import simd_function
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES, SCALES, Activation
from fllm_backends.torch.fused.target import Target, targets

PRODUCTS = (formats.Q4_1, 8, 2), (formats.Q5_0, 3, 1), (formats.Q6_K, 2, 2), (formats.Q8_1, 3, 2)
"""Formats, numbers of rows and of planes that a short test multiplies."""
ALL_PRODUCTS = [(form, rows, planes) for form in FORMATS for rows in (1, 2, 3, 4, 8) for planes in (1, 2)]
Results = dict[str, np.ndarray]


def run(kernel: Any, *arguments: np.ndarray | int) -> None:
    """Compile an intrinsic and run it; arrays are passed by address."""
    names = ", ".join(f"a{i}" for i in range(len(arguments)))
    space: dict[str, Any] = {"kernel": kernel}
    exec(f"def call({names}): kernel(({names},))", space)  # noqa: S102
    call: Callable[..., None] = numba.njit(space["call"])
    call(*(x.ctypes.data if isinstance(x, np.ndarray) else x for x in arguments))


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Return random floats between -2 and 2, the same on every processor."""
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


def panel(form: Format, groups: int) -> np.ndarray:
    """Return a panel of random weights: [blocks, bytes of a block]."""
    random = np.random.default_rng(1)
    blocks = random.integers(0, 256, (groups // form.groups, form.block_bytes), np.uint8)
    end = form.groups * form.value_bytes
    if form.scales is Scales.NESTED:  # integers, then two rows of float16
        end = form.block_bytes - 4 * PANEL
    elif form.scales is Scales.HALVES:
        end = form.block_bytes - 2 * PANEL
    stop = end + 2 * PANEL if form.scales is Scales.ZEROS else form.block_bytes
    halves = random.uniform(-1, 1, (len(blocks), (stop - end) // 2)).astype(np.float16)
    blocks[:, end:stop] = halves.view(np.uint8)
    return blocks


def product(target: Target, form: Format, rows: int, planes: int) -> np.ndarray:
    """Return the product of quantized rows with a panel: [rows, PANEL]."""
    groups = 2 * form.groups
    x, out = numbers(2, rows, groups * GROUP), numbers(3, rows, PANEL)
    quantized = np.empty((rows, planes, groups, GROUP), np.int8)
    scales, bias = np.empty((rows, groups, SCALES), np.float32), numbers(4, PANEL)
    for row in range(rows):
        run(simd_kernels.quantize_groups(target, planes), x[row], groups, quantized[row], scales[row])
    kernel = simd_function(target.width)(simd_kernels.panel_matmul(target, rows, form, planes))
    strides = groups * planes * GROUP, groups * SCALE_BYTES
    run(
        kernel,
        quantized,
        strides[0],
        scales,
        strides[1],
        panel(form, groups),
        groups,
        bias,
        out,
        PANEL * 4,
        rows % 2,
    )
    return out


def products(target: Target, which: Iterable[tuple[Format, int, int]] = PRODUCTS) -> Results:
    """Return products by their names."""
    return {
        f"{form.name} {rows} {planes}": product(target, form, rows, planes) for form, rows, planes in which
    }


def others(target: Target) -> Results:
    """Return the results of the other kernels: of attention, softmax and gates."""
    dim, rows, pages = 64, 4, 2
    keys = numbers(5, pages, dim, PANEL).astype(np.float16)
    places = page_addresses(keys)
    scores, states = np.empty((rows, pages * PANEL), np.float32), np.zeros((rows, STATE), np.float32)
    multiply, add = (
        simd_function(target.width)(part(target, rows, CacheType.HALF))
        for part in (block_scores, block_values)
    )
    run(multiply, numbers(6, rows, dim), dim, places, pages, scores, 4 * pages * PANEL)
    weights = np.empty_like(scores)
    weigh = simd_function(target.width)(block_weights(target, 1, CacheType.HALF))
    for row in range(rows):
        run(weigh, scores[row], pages * PANEL, states[row], weights[row])
    out = numbers(7, rows, dim)
    run(add, weights, 4 * pages * PANEL, places, pages, dim, states, out)
    gates, scales = np.empty(GROUP, np.int8), np.empty(SCALES, np.float32)
    gelu = simd_kernels.activate_and_mul(target, Activation.GELU_TANH)
    run(gelu, numbers(8, GROUP), numbers(9, GROUP), gates, scales)
    return {
        "scores": scores,
        "weights": weights,
        "states": states,
        "values": out,
        "gates": gates * scales[0],
    }


def page_addresses(pages: np.ndarray) -> np.ndarray:
    """Return the addresses of pages, and after them those of the last one, which are prefetched."""
    count, size = len(pages), pages[0].nbytes
    return pages.ctypes.data + size * np.minimum(np.arange(count + PAGES_AHEAD), count - 1)


if __name__ == "__main__":
    chosen = ALL_PRODUCTS if "--all" in sys.argv else PRODUCTS
    arrays = {
        f"{target.multiply} {name}": array
        for target in targets()
        for name, array in {**products(target, chosen), **others(target)}.items()
    }
    np.savez(sys.argv[1], **arrays)  # type: ignore[arg-type]
