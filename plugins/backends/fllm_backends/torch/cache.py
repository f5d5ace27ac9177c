"""Where what was made once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("FLLM_CACHE") or "~/.cache/furiosa-llm").expanduser()
