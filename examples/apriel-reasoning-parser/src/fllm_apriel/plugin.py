"""What this package offers; the parser itself is imported when somebody chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Entry, hookimpl


@hookimpl
def fllm_reasoning_parsers() -> Iterable[Entry]:
    """``--reasoning-parser apriel``."""
    yield Entry(
        "apriel",
        "fllm_apriel.parser:AprielParser",
        "ServiceNow's Apriel thinkers: reasoning up to [BEGIN FINAL RESPONSE].",
    )
