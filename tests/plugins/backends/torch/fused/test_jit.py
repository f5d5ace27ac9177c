"""Processes that start together must not mix up their kernels in the one cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from fllm_backends.torch.fused import jit
from fllm_backends.torch.fused.jit import compile_lock

ASK = """
import fcntl
from fllm_backends.torch.fused.jit import _cache_directory
with (_cache_directory() / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def another_compiles() -> bool:
    asked = subprocess.run([sys.executable, "-c", ASK], check=False, capture_output=True, text=True)
    assert asked.returncode == 0 or "BlockingIOError" in asked.stderr, asked.stderr
    return asked.returncode == 0


def test_one_process_at_a_time_compiles_kernels() -> None:
    with compile_lock():
        assert not another_compiles()
    assert another_compiles()


def test_kernels_that_are_not_as_they_were_left_are_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "_cache_directory", lambda: tmp_path)
    with compile_lock():
        (tmp_path / "kernel.nbc").write_bytes(b"code")
    with compile_lock():
        assert (tmp_path / "kernel.nbc").read_bytes() == b"code"
    (tmp_path / "kernel.nbc").write_bytes(b"cod?")
    with compile_lock():
        assert not (tmp_path / "kernel.nbc").exists()


def test_kernels_of_old_versions_are_removed_and_a_full_disk_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path))
    for number in range(jit.MAX_VERSIONS + 2):
        (tmp_path / "kernels" / f"old-{number}").mkdir(parents=True)
    found = jit._cache_directory.__wrapped__()
    assert found is not None
    assert found.is_dir()
    assert len([*(tmp_path / "kernels").iterdir()]) == jit.MAX_VERSIONS
    monkeypatch.setattr(jit, "MIN_FREE_BYTES", 2**80)
    assert jit._cache_directory.__wrapped__() is None
