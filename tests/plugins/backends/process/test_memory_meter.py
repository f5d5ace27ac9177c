"""The memory of an engine includes that of its child processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from fllm_backends.process.memory_meter import MemoryMeter

SIZE = 64 * 2**20
HOLDER = f"import sys; data = bytearray(b'x') * {SIZE}; print(flush=True); sys.stdin.read()"


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not report it")
def test_memory_of_child_processes_counts() -> None:
    alone = asyncio.run(MemoryMeter().read())
    assert alone > 0
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert asyncio.run(MemoryMeter().read()) - alone > SIZE // 2
        child.communicate()
