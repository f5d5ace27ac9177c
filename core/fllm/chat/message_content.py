"""The content of messages: a string, a list of parts, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

IMAGE_PART = {"type": "image"}
"""A part that stands for an image, as chat templates take it."""
IMAGE_MARK = "\U000e01ee"
"""Text that stands for an image where a template takes only text: a variation selector that no text needs."""


def join_contents(contents: Iterable[Any], separator: str = "\n\n") -> Any:
    """Concatenate contents that are not empty; ``separator`` is between them if all are strings."""
    given = [content for content in contents if content]
    if all(isinstance(content, str) for content in given):
        return separator.join(given)
    return given[0] if len(given) == 1 else [part for content in given for part in _parts(content)]


def part_text(part: Any) -> str:
    """Return the text of a part, also that of a refusal; `IMAGE_MARK` for an image."""
    if part.get("type") == "image":
        return IMAGE_MARK
    text: str = part.get("text") or part.get("refusal") or ""
    return text


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
