"""The plugin of the parser, which is imported only when a user chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import ParserEntry, hookimpl


@hookimpl
def fllm_reasoning_parsers() -> Iterable[ParserEntry]:
    """Yield ``apriel``, which ``auto`` chooses if the chat template has the marker."""
    yield ParserEntry(
        "apriel",
        "fllm_apriel.parser:AprielParser",
        "ServiceNow's Apriel models: reasoning up to [BEGIN FINAL RESPONSE].",
        template_markers=("[BEGIN FINAL RESPONSE]",),
    )
