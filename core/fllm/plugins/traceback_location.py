"""Where in a stranger's code an error arose."""

from __future__ import annotations

import traceback
from pathlib import Path

OURS = Path(__file__).parent


def blamed(error: BaseException) -> str | None:
    """``file:line``, nearest to the error, that is neither ours nor the import system's, if there is one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    theirs = (f"{frame.filename}:{frame.lineno}" for frame in reversed(frames) if not _known(frame.filename))
    return next(theirs, None)


def _known(file: str) -> bool:
    return file.startswith("<") or "importlib" in Path(file).parts or OURS in Path(file).parents
