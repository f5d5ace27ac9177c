"""``huge_pages``: whether memory is in huge pages, which a processor finds faster than small ones."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Literal, TypeAlias

from fllm.errors import ConfigError

HugePages: TypeAlias = Literal["auto", "on", "off"]
"""``auto``: packed weights are in huge pages. ``on``: the KV cache, too."""

_DISABLE = 41
"""``PR_SET_THP_DISABLE`` of prctl."""
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def check_huge_pages(mode: HugePages) -> None:
    """Raise `ConfigError` if huge pages are required and the system does not give them."""
    if mode == "on" and not allows_huge_pages():
        raise ConfigError(
            f"--backend-option huge_pages=on: the system has none; write `madvise` to {_ENABLED}, or use auto"
        )


def allows_huge_pages() -> bool:
    """Return whether the system gives huge pages to memory that asks for them."""
    try:
        return "[never]" not in _ENABLED.read_text()
    except OSError:
        return False


def forbid_huge_pages() -> None:
    """Keep this process from using huge pages, also those that numpy asks for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DISABLE, 1, 0, 0, 0)
