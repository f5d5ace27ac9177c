"""The device's options. The command line checks them, and `furiosa-llm plugins show numpy` lists them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class NumpyOptions(Struct, frozen=True, kw_only=True):
    """The options that ``--backend-option KEY=VALUE`` sets."""

    kv_cache_tokens: Annotated[int, Meta(ge=256, description="tokens that the KV cache holds")] = 16384
