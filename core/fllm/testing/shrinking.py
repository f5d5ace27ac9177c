"""Shrink the pieces of a text that reproduce a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def shrink(pieces: list[str], fails: Callable[[list[str]], bool]) -> list[str]:
    """Return pieces that still fail, but not with less text or fewer divisions.

    Hypothesis shrinks by the parts that a text was generated from; this function shrinks by characters.
    """
    while (smaller := next(filter(fails, _candidates(pieces)), None)) is not None:
        pieces = smaller
    return pieces


def _candidates(pieces: list[str]) -> Iterator[list[str]]:
    """Yield smaller cases: less text, the largest cuts first; fewer pieces; less text divided anywhere."""
    for i, piece in enumerate(pieces):
        before, after = pieces[:i], pieces[i + 1 :]
        if before or after:
            yield before + after
        for shorter in _shorter(piece):
            yield [*before, shorter, *after]
    for i in range(1, len(pieces)):
        yield [*pieces[: i - 1], pieces[i - 1] + pieces[i], *pieces[i + 1 :]]
    for text in _shorter("".join(pieces)):
        for cut in range(1, len(text)):
            yield [text[:cut], text[cut:]]


def _shorter(piece: str) -> Iterator[str]:
    size = len(piece) // 2
    while size:
        for start in range(0, len(piece), size):
            yield piece[:start] + piece[start + size :]
        size //= 2
