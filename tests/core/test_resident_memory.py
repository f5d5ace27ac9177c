"""What a start gives back to the system."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fllm.resident_memory import return_freed_memory, unmap_idle_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def library_bytes() -> int:
    """Return the resident bytes of the code of libraries."""
    mappings = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    code = (each for each in mappings if re.match(r"\S+ r-xp .*\.so", each))
    return sum(int(re.search(r"^Rss: +(\d+) kB", each, re.MULTILINE)[1]) * 1024 for each in code)


def test_libraries_are_unmapped_and_still_work() -> None:
    expected = np.linalg.inv(np.eye(8) * 4).tolist()
    before = library_bytes()
    unmap_idle_files()
    assert library_bytes() < before * 0.7
    assert np.linalg.inv(np.eye(8) * 4).tolist() == expected


def test_weights_that_were_read_are_unmapped_unless_they_were_changed(tmp_path: Path) -> None:
    arrays = []
    for name in ("model.safetensors", "changed.safetensors", "other"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 4096)
        arrays.append(np.memmap(tmp_path / name, np.uint8, "c"))
    arrays[1][7] = 99
    sums = [int(each.sum()) for each in arrays]
    assert [resident(tmp_path / each) for each in ("model.safetensors", "other")] == [1024, 1024]
    unmap_idle_files()
    assert resident(tmp_path / "model.safetensors") == 0
    assert [resident(tmp_path / each) for each in ("changed.safetensors", "other")] == [1024, 1024]
    assert [int(each.sum()) for each in arrays] == sums
    assert arrays[1][7] == 99


def resident(file: Path) -> int:
    """Return the resident KiB of a mapped file."""
    mappings = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    own = next(each for each in mappings if f" {file}\n" in each)
    return int(re.search(r"^Rss: +(\d+) kB", own, re.MULTILINE)[1])


def test_freed_memory_is_returned() -> None:
    return_freed_memory()


def test_a_system_without_proc_keeps_its_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fllm.resident_memory._SMAPS", tmp_path / "none")
    before = library_bytes()
    unmap_idle_files()
    assert library_bytes() >= before * 0.7
