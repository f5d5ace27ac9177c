"""Responses of `/v1/models`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


class ModelObject(Struct, frozen=True, kw_only=True):
    """OpenAI's model object, with additional fields."""

    id: str
    created: int
    """Start time of the server, as Unix time in seconds."""
    object: Literal["model"] = "model"
    owned_by: str = "furiosa-llm"
    root: str | UnsetType = UNSET
    """Where the weights come from: MODEL, or the directory of the adapter. Only with LoRA enabled."""
    parent: str | UnsetType | None = UNSET
    """Name of the model that a LoRA adapter belongs to; ``None`` for the model itself."""
    artifact_id: str
    max_prompt_len: int
    max_context_len: int
    max_model_len: int
    runtime_config: dict[str, Any]
    """Settings reported by the backend, such as device, dtype, quantization and KV-cache blocks."""


class ModelList(Struct, frozen=True, kw_only=True):
    """List of the model's names and of its LoRA adapters."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
