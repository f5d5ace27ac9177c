"""Processes that start together must not mix up their kernels in the one cache."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("numba")

from fllm_backends.torch.fused.compiled import compiling

ASK = """
import fcntl
from fllm_backends.torch.fused.compiled import _cache_directory
with (_cache_directory() / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def another_compiles() -> bool:
    asked = subprocess.run([sys.executable, "-c", ASK], check=False, capture_output=True, text=True)
    assert asked.returncode == 0 or "BlockingIOError" in asked.stderr, asked.stderr
    return asked.returncode == 0


def test_one_process_at_a_time_compiles_kernels() -> None:
    with compiling():
        assert not another_compiles()
    assert another_compiles()
