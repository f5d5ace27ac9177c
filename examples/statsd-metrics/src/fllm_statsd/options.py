"""Options of the plugin."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class StatsdOptions(Struct, frozen=True, kw_only=True):
    """Values of ``--plugin-option statsd.KEY=VALUE``."""

    host: Annotated[str, Meta(description="address of the StatsD server")] = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535, description="its UDP port")] = 8125
    prefix: Annotated[str, Meta(description="first part of the names of metrics")] = "fllm"
