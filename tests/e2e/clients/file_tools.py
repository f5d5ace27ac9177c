"""Two tools for agents: read a file, and replace text in it."""

from __future__ import annotations

from pathlib import Path

QUESTION = "Change 41 to 42 in note.txt."


def read_file(path: str) -> str:
    """Read a file.

    Args:
        path: Path of the file.
    """
    return Path(path).read_text()


def edit_file(path: str, old: str, new: str) -> str:
    """Replace text in a file.

    Args:
        path: Path of the file.
        old: Text to replace.
        new: Text to write in its place.
    """
    Path(path).write_text(Path(path).read_text().replace(old, new))
    return f"{path} has been edited."
