"""The plugin of the parser, which is imported only when a user chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import ParserEntry, hookimpl


@hookimpl
def fllm_tool_parsers() -> Iterable[ParserEntry]:
    """Yield ``functionary_v3_1``, which ``auto`` chooses if the chat template describes this format."""
    yield ParserEntry(
        "functionary_v3_1",
        "fllm_functionary.parser:FunctionaryParser",
        "Functionary v3.1, and Llama 3.1 with its prompt: <function=NAME>{arguments}</function>.",
        template_markers=("start_tag => `<function`", "end_tag => `</function>`"),
    )
