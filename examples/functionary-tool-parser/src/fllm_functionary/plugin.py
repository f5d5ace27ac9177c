"""What this package offers; the parser itself is imported when somebody chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Entry, hookimpl


@hookimpl
def fllm_tool_parsers() -> Iterable[Entry]:
    """``--tool-call-parser functionary_v3_1``."""
    yield Entry(
        "functionary_v3_1",
        "fllm_functionary.parser:FunctionaryParser",
        "Functionary v3.1, and Llama 3.1 told so: <function=NAME>{arguments}</function>.",
    )
