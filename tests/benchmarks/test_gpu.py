from __future__ import annotations

import subprocess
import sys

from support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
ABSENT = ["litestar", "uvicorn", "rich_click", "click", "prometheus_client", "gguf", "numba", "llvmlite"]


def test_it_runs_where_neither_a_server_nor_a_gpu_is() -> None:
    program = f"""
import runpy, sys
sys.modules |= dict.fromkeys({ABSENT})
sys.argv = ["gpu.py", "--model", "tiny", "--smoke", "--parts", "speed,logits"]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == [
        "| memory is read at",
        "| dense bf16 products",
        "| decode, 1 sequence, context 32",
        "| 3 sequences, 8 in / 4 out",
        "| prefill, 2 x 32 tokens",
        "| logits, relative to fp32 on the CPU",
    ]
