"""docs/testing.md lists every contract, and its examples are complete test files that pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

import fllm.testing

PAGE = (ROOT / "docs" / "testing.md").read_text()
FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_contract_is_on_the_page() -> None:
    contracts = [name for name in fllm.testing.__all__ if name.endswith("Contract")]
    assert contracts
    for name in contracts:
        assert f"| `{name}` |" in PAGE


def test_the_examples_pass(tmp_path: Path) -> None:
    tests = dict(FILE.findall(PAGE))
    parsers = dict(FILE.findall((ROOT / "CONTRIBUTING.md").read_text()))
    for file, code in {**tests, **parsers}.items():
        (tmp_path / file).write_text(code)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(tests) == 7
