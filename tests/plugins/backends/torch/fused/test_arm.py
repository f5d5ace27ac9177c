"""The kernels on 64-bit Arm processors: their instructions, and their results on an emulated processor."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import binding, ir
from support.kernel_results import others, products
from support.paths import ROOT

from fllm_backends.torch.fused import arm_features, simd_kernels
from fllm_backends.torch.fused import target as target_module
from fllm_backends.torch.fused.formats import FORMATS, Q8_1, Format
from fllm_backends.torch.fused.simd_builder import INT64, Emitter, SimdBuilder
from fllm_backends.torch.fused.target import DOTPROD, I8MM, NEON, Target, targets

FEATURES = {NEON: "", DOTPROD: "+dotprod", I8MM: "+dotprod,+i8mm"}
DOTS = {"smull", "smull2", "sdot", "usdot", "usmmla"}
EMULATED_PYTHON = Path(os.environ.get("FLLM_AARCH64_PYTHON", ROOT / "build/aarch64/python"))
"""Made by ``scripts/aarch64-python``."""


def instructions(target: Target, emit: Emitter, arguments: int) -> set[str]:
    """Return the names of the instructions that LLVM selects for a kernel, on a processor without others."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = "aarch64-linux-gnu"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * arguments), "kernel")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(SimdBuilder(builder, target.width), *function.args)
    builder.ret_void()
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        features=FEATURES[target], opt=2
    )
    parsed = binding.parse_assembly(str(module))
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(1))
    passes.getModulePassManager().run(parsed, passes)
    return set(re.findall(r"^\t([a-z]\w*)", machine.emit_assembly(parsed), re.MULTILINE))


@pytest.mark.parametrize(
    ("target", "rows", "expected"),
    [
        (NEON, 1, {"smull", "smull2"}),
        (DOTPROD, 1, {"sdot"}),
        (DOTPROD, 4, {"sdot"}),
        (I8MM, 1, {"usdot"}),
        (I8MM, 3, {"usdot", "usmmla"}),
        (I8MM, 4, {"usmmla"}),
    ],
)
def test_products_use_the_instructions_of_the_processor(
    target: Target, rows: int, expected: set[str]
) -> None:
    found = instructions(target, simd_kernels.panel_matmul(target, rows, Q8_1, 1), 10)
    assert found & DOTS == expected
    assert "fmla" in found


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_compiles_for_every_arm_processor(form: Format) -> None:
    for target in FEATURES:
        assert instructions(target, simd_kernels.panel_matmul(target, 2, form, 2), 10) & DOTS


class Library:
    """Answers as a C library on a processor with some features."""

    def __init__(self, linux: dict[int, int], macos: set[bytes]) -> None:
        self.getauxval = _Function(lambda key: linux.get(key, 0))
        self._macos = macos

    def sysctlbyname(self, name: bytes, value: Any, *_: Any) -> int:
        if name not in self._macos:
            return -1
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = 1
        return 0


class _Function(SimpleNamespace):
    def __init__(self, call: Any) -> None:
        super().__init__(call=call)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


@pytest.mark.parametrize(
    ("platform", "library", "expected"),
    [
        ("linux", Library({16: 0x8FB}, set()), ()),
        ("linux", Library({16: 0x119FFB}, set()), ("dotprod",)),
        ("linux", Library({16: 0x119FFB, 26: 1 << 13}, set()), ("dotprod", "i8mm")),
        ("darwin", Library({}, {b"hw.optional.arm.FEAT_DotProd"}), ("dotprod",)),
        ("darwin", Library({}, set()), ()),
    ],
)
def test_features_are_those_that_the_system_reports(
    platform: str, library: Library, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm_features.sys, "platform", platform)
    monkeypatch.setattr(arm_features.ctypes, "CDLL", lambda name: library)
    assert arm_features.detect_features() == expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"neon"}, (NEON,)),
        ({"neon", "dotprod"}, (DOTPROD, NEON)),
        ({"dotprod", "i8mm"}, (I8MM, DOTPROD, NEON)),
        ({"i8mm"}, (NEON,)),
    ],
)
def test_the_best_instructions_come_first(
    features: set[str], expected: tuple[Target, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "IS_ARM", True)
    monkeypatch.setattr(target_module, "compiled_features", lambda: frozenset(features))
    assert targets.__wrapped__() == expected


def test_features_are_those_that_numba_compiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = arm_features.compiled_features()  # numba compiles for this processor already
    monkeypatch.setattr(arm_features, "detect_features", lambda: ("dotprod",))
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    assert arm_features.compiled_features() == compiled
    assert "dotprod" not in compiled or arm_features.IS_ARM
    assert numba.config.CPU_FEATURES.endswith(",+dotprod")
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "+neon")
    arm_features.compiled_features()
    assert numba.config.CPU_FEATURES == "+neon"


@pytest.mark.skipif(not EMULATED_PYTHON.exists(), reason="needs scripts/aarch64-python (QEMU)")
def test_an_emulated_processor_computes_the_same(tmp_path: Path) -> None:
    parts = "core", "plugins/backends", "tests"
    subprocess.run(
        [EMULATED_PYTHON, "-m", "support.kernel_results", tmp_path / "results.npz"],
        env=os.environ
        | {"PYTHONPATH": ":".join(str(ROOT / part) for part in parts), "FLLM_CACHE": str(tmp_path)},
        check=True,
        timeout=500,
    )
    emulated = np.load(tmp_path / "results.npz")
    names = {name.split()[0] for name in emulated}
    assert names == {"smull", "sdot", "usmmla"}
    for name, expected in {**products(targets()[0]), **others(targets()[0])}.items():
        for multiply in names:
            found = emulated[f"{multiply} {name}"]
            # Sums of integers are exact. Signed weights of 8 bits have other minima, which are rounded.
            close = np.float32(1e-6) if name == "sum" or name.startswith("Q8_1") else np.float32(0)
            np.testing.assert_allclose(found, expected, rtol=close, atol=close * np.abs(expected).max())
