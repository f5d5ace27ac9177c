"""Register ``furiosa-llm bench``."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Entry, hookimpl


@hookimpl
def fllm_commands() -> Iterable[Entry]:
    """Yield the ``bench`` command."""
    yield Entry("bench", "fllm_bench.command:bench", "Measure this server and compare it with others.")
