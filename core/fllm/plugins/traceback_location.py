"""Finds the line of a plugin that an error came from."""

from __future__ import annotations

import traceback
from pathlib import Path

_FLLM_PLUGINS = Path(__file__).parent


def plugin_frame(error: BaseException) -> str | None:
    """Return ``file:line`` of the plugin's frame that is nearest to the error, or ``None``."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = reversed(traceback.extract_tb((error.__cause__ or error).__traceback__))
    return next(
        (f"{each.filename}:{each.lineno}" for each in frames if not _is_internal(each.filename)), None
    )


def _is_internal(file: str) -> bool:
    path = Path(file)
    return file.startswith("<") or "importlib" in path.parts or _FLLM_PLUGINS in path.parents
