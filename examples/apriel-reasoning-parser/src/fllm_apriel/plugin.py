"""What this package offers; the parser itself is imported when somebody chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import ParserEntry, hookimpl


@hookimpl
def fllm_reasoning_parsers() -> Iterable[ParserEntry]:
    """``--reasoning-parser apriel``, which ``auto`` means where the template has the marker."""
    yield ParserEntry(
        "apriel",
        "fllm_apriel.parser:AprielParser",
        "ServiceNow's Apriel thinkers: reasoning up to [BEGIN FINAL RESPONSE].",
        template_markers=("[BEGIN FINAL RESPONSE]",),
    )
