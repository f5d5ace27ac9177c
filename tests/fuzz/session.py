"""One case of the fuzzer, and the report of a case that fails."""

from __future__ import annotations

from random import Random

from fuzz.laws import check
from fuzz.subjects import Subject
from fuzz.texts import hostile_context, hostile_text, pieces_of

from fllm.testing.shrinking import shrink


class Broken(AssertionError):
    """Raised for a parser that breaks a law; the message has the smallest pieces that show it."""


def run_case(subject: Subject, seed: str) -> None:
    """Check the parser with one text made from the seed; raise `Broken` if it breaks a law."""
    draw = Random(f"{subject.title} {seed}")
    context = hostile_context(draw)
    constrained = subject.kind == "reasoning" and draw.random() < 0.2
    text = hostile_text(subject, draw)
    pieces = pieces_of(text, draw)

    def breaks(pieces: list[str]) -> bool:
        try:
            check(subject, context, pieces, constrained=constrained)
        except AssertionError:
            return True
        return False

    if not breaks(pieces):
        return
    least = shrink(pieces, breaks)
    try:
        check(subject, context, least, constrained=constrained)
    except AssertionError as error:
        tools = "tools" if context.tools else "no tools"
        tried = f"{tools}, {context.prompt!r}, {context.template_kwargs}{', constrained' * constrained}"
        raise Broken(f"{subject.title}: {error}\n  pieces {least!r}\n  {tried}; seed {seed!r}") from error
