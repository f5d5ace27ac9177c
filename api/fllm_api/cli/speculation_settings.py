"""Check ``--speculative-config`` against the drafter that it names, before that is imported."""

from __future__ import annotations

from fllm.config import Speculation
from fllm.drafter import DrafterFactory
from fllm.plugins.options import drafter_options
from fllm.plugins.registry import DrafterEntry, Registry


def check_speculation(
    speculation: Speculation | None, drafters: Registry[DrafterFactory], *, is_local: bool
) -> None:
    """Raise `UserError` if there is no such drafter, its extra is missing, or one of its fields is invalid.

    Engines that are not local have extras of their own.
    """
    if speculation is None:
        return
    entry = drafters.entry(speculation.method)
    if is_local:
        drafters.require_extra(speculation.method)
    if isinstance(entry, DrafterEntry) and entry.options is not None:
        drafter_options(speculation.settings, entry.options)
