"""The device's own options, which the command line checks and `furiosa-llm plugins show numpy` lists."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class NumpyOptions(Struct, frozen=True, kw_only=True):
    """``--backend-option KEY=VALUE``."""

    kv_cache_tokens: Annotated[int, Meta(ge=256, description="tokens that the KV cache holds")] = 16384
