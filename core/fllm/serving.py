"""The server, as plugins with routes use it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class RoutesContext(Struct, frozen=True, kw_only=True):
    """Input of the hook `fllm_routes`."""

    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""
