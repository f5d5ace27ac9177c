"""Processes that start together must not mix up their kernels in the one cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest

pytest.importorskip("numba")

from fllm_backends.checkpoints.cache import is_intact, write_checksums
from fllm_backends.checkpoints.cache_directory import find_problem_in
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


def test_a_cache_that_another_process_removes_meanwhile_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "version"
    monkeypatch.setattr(jit, "_cache_directory", lambda: directory)
    removals = 0

    def flock(lock: TextIO, operation: int) -> None:
        nonlocal removals
        if removals < 2:
            removals += 1
            shutil.rmtree(directory)
            if removals == 2:  # and another process creates it again
                directory.mkdir()
                (directory / "lock").touch()
        fcntl.flock(lock, operation)

    monkeypatch.setattr(jit, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX))
    with compile_lock():
        assert removals == 2
        with (directory / "lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
    assert "no cache for kernels (No space left on device)" in caplog.text


@pytest.mark.parametrize("what", ["mode", "link", "pipe"])
def test_kernels_that_others_could_have_written_are_compiled_anew(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    directory = jit._cache_directory.__wrapped__()
    assert directory is not None
    file, other = directory / "kernels_of_a_file" / "kernel.nbc", tmp_path / "other"
    file.parent.mkdir()
    file.write_bytes(b"code")
    write_checksums(directory)
    assert jit._cache_directory.__wrapped__() == directory
    assert is_intact(directory)
    if what == "mode":
        file.chmod(0o666)
    else:
        file.rename(other)
        file.symlink_to(other) if what == "link" else os.mkfifo(file)
    assert not is_intact(directory)
    assert jit._cache_directory.__wrapped__() == directory
    assert [*directory.iterdir()] == []
    assert caplog.text.count("compiling the kernels again: ") == 1
    assert what == "mode" or other.read_bytes() == b"code"


def test_kernels_of_a_read_only_cache_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, private = tmp_path / "image" / "version", tmp_path / "private" / "version"
    (image / "file").mkdir(parents=True)
    (image / "file" / "kernel.nbc").write_bytes(b"code")
    write_checksums(image)
    private.mkdir(parents=True)
    monkeypatch.setattr(jit, "_cache_directory", lambda: private)
    monkeypatch.setattr(jit, "read_only_directory", lambda kind: image.parent)
    with compile_lock():
        assert (private / "file" / "kernel.nbc").read_bytes() == b"code"
    assert is_intact(private)


def test_numba_reads_kernels_only_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jit, "_cache_directory", lambda: tmp_path)
    umask = os.umask(0)
    try:
        compiled = jit.kernel()(kernel_of_a_test)
        with compile_lock():
            assert compiled(1) == 2
    finally:
        os.umask(umask)
    assert [*tmp_path.glob("*/*.nbc")]
    assert find_problem_in(tmp_path) == ""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jit, "_cache_directory", lambda: tmp_path / "file")
    with pytest.raises(RuntimeError, match="no locator available"):
        jit.kernel()(kernel_of_a_test)


def kernel_of_a_test(x: int) -> int:
    return x + 1
