"""Every kernel compiles for an H100, without one: Triton brings ptxas along."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels are written in Triton")

PROGRAM = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fllm_backends.torch.cuda import attention, matmul, pointwise

POINTERS = {"tables": "*i32", "width": "*i32", "tokens": "*i32", "lengths": "*i32", "tiles": "*i32",
    "slots": "*i32", "sums": "*fp32", "weights": "*fp32", "cosine": "*fp32", "sine": "*fp32"}
NUMBERS = {"scale": "fp32", "eps": "fp32", "rows": "i32"}
SHARED_MEMORY = 227 * 1024  # of one block

def build(kernel, constants, types={}, options={}):
    known = POINTERS | NUMBERS | types
    signature = {
        name: "constexpr" if name in constants else known.get(name, "*bf16") for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    pointers = [at for at, kind in enumerate(signature.values()) if kind.startswith("*")]
    aligned = {(at,): [["tt.divisibility", 16]] for at in pointers}
    source = ASTSource(kernel, signature, constexprs=places, attrs=aligned)
    built = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert built.metadata.shared <= SHARED_MEMORY
    print(kernel.__name__)

HEADS = {"HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": 128, "DIMS": 128}
walk = HEADS | {"WINDOW": 4096, "BLOCK_SIZE": 16, "KEYS": 64}
build(attention._attend_decode, walk | {"SHARED": 16}, {}, {"num_stages": 2})
build(attention._attend_chunk, walk | {"QUERIES": 64}, {}, {"num_stages": 2})
wide = walk | {"HEAD_DIM": 256, "DIMS": 256}
build(attention._attend_decode, wide | {"SHARED": 64}, {}, {"num_stages": 1})
build(attention._attend_chunk, wide | {"QUERIES": 64}, {}, {"num_stages": 1})
build(attention._combine_splits, {"HEADS": 32, "HEAD_DIM": 128, "DIMS": 128, "SPLITS": 64})
build(pointwise._rms_norm, {"SIZE": 4096, "COLUMNS": 4096}, {}, {"num_warps": 8})
heads = {"HEADS": 32, "KV_HEADS": 8, "HALF": 64, "PAIRS": 64}
build(pointwise._norm_rope_and_cache, heads | {"NORM": True, "ROTATE": True}, {}, {"num_warps": 1})
build(pointwise._silu_and_mul, {"SIZE": 14336, "COLUMNS": 1024})
for kind in ("*bf16", "*i8", "*fp8e4nv"):
    types = {"weight": kind, "scale": "*fp32"}
    shape = {"SCALED": kind != "*bf16", "BIASED": True, "ADD": True, "IN": 4096, "OUT": 6144}
    build(matmul._matvec, shape | {"NORM": True, "OUTPUTS": 4, "INPUTS": 1024}, types)
    for tile in matmul._TILES:
        sizes = {"ROWS": tile.rows, "OUTPUTS": tile.outputs, "INPUTS": tile.inputs}
        options = {"num_warps": tile.warps, "num_stages": tile.stages}
        build(matmul._matmul, shape | sizes, types, options)
"""


def test_every_kernel_compiles_for_hopper() -> None:
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", PROGRAM], env=compiling, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(set(result.stdout.split())) == 8
