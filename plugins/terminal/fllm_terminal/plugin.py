"""Register ``furiosa-llm chat`` and ``furiosa-llm run``."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Entry, hookimpl


@hookimpl
def fllm_commands() -> Iterable[Entry]:
    """Yield the commands."""
    yield Entry("chat", "fllm_terminal.chat:chat", "Chat with a model or a server in the terminal.")
    yield Entry("run", "fllm_terminal.run:run", "Print the response to one prompt.")
