"""``huge_pages``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fllm.config import BackendConfig
from fllm.errors import ConfigError
from fllm_backends.torch import huge_pages
from fllm_backends.torch.options import read_torch_config


def test_huge_pages_can_be_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    enabled = tmp_path / "enabled"
    monkeypatch.setattr(huge_pages, "_ENABLED", enabled)
    enabled.write_text("always [madvise] never\n")
    assert read_torch_config(BackendConfig(model="a/b", options={"huge_pages": "on"})).huge_pages == "on"
    for text in ("always madvise [never]\n", None):
        enabled.write_text(text) if text else enabled.unlink()
        assert read_torch_config(BackendConfig(model="a/b")).huge_pages == "auto"
        with pytest.raises(ConfigError, match="huge_pages=on: the system has none; write `madvise` to"):
            read_torch_config(BackendConfig(model="a/b", options={"huge_pages": "on"}))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="huge_pages"):
        read_torch_config(BackendConfig(model="a/b", options={"huge_pages": "yes"}))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has huge pages")
def test_they_can_be_forbidden_for_a_process() -> None:
    code = """
from fllm_backends.torch.huge_pages import forbid_huge_pages
from fllm_backends.torch.mapped_memory import map_memory
forbid_huge_pages()
array = map_memory(8 << 20, huge=True)
array[:] = 1
print("".join(line for line in open("/proc/self/smaps_rollup") if "AnonHugePages" in line))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["AnonHugePages:", "0", "kB"]
