"""Register the panel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fllm import PagePanel, hookimpl


@hookimpl
def fllm_page_panels() -> Iterable[PagePanel]:
    """Yield the panel. Its script asks the routes of the built-in plugin ``tokens``."""
    yield PagePanel("context", "Context", Path(__file__).with_name("panel.js"))
