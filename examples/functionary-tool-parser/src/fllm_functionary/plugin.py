"""What this package offers; the parser itself is imported when somebody chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import ParserEntry, hookimpl


@hookimpl
def fllm_tool_parsers() -> Iterable[ParserEntry]:
    """``--tool-call-parser functionary_v3_1``, which ``auto`` means where the template shows this format."""
    yield ParserEntry(
        "functionary_v3_1",
        "fllm_functionary.parser:FunctionaryParser",
        "Functionary v3.1, and Llama 3.1 told so: <function=NAME>{arguments}</function>.",
        template_markers=("start_tag => `<function`", "end_tag => `</function>`"),
    )
