"""Requests that load and unload LoRA adapters, in vLLM's format."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

AdapterName = Annotated[
    str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")
]
"""Name of an adapter: printable text."""
AdapterPath = Annotated[str, Meta(min_length=1, max_length=4096)]


class LoadLoraAdapterRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/load_lora_adapter`."""

    lora_name: AdapterName
    """Name by which requests choose the adapter."""
    lora_path: AdapterPath
    """Directory on the server, in PEFT's layout."""
    load_inplace: bool | None = None
    """Replace a loaded adapter of this name."""
    model: str | None = None
    """Name of the model that the adapter belongs to, if the server has several; the first by default."""


class UnloadLoraAdapterRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/unload_lora_adapter`."""

    lora_name: AdapterName
