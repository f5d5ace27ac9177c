"""Responses of `/v1/models`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from fllm_api.models.model import ModelState


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
    artifact_id: str | UnsetType = UNSET
    """Identifies the weights. Absent, like the fields below, until the model has been loaded once."""
    max_prompt_len: int | UnsetType = UNSET
    max_context_len: int | UnsetType = UNSET
    max_model_len: int | UnsetType = UNSET
    input_modalities: list[str] | UnsetType = UNSET
    """Present if the model takes more than text."""
    runtime_config: dict[str, Any] | UnsetType = UNSET
    """Settings reported by the backend, such as device, dtype, quantization and KV-cache blocks."""
    state: ModelState | UnsetType = UNSET
    """Whether it is loaded. Present, like the fields below, if the server loads models on demand."""
    memory: int | UnsetType = UNSET
    """Bytes that it occupies now."""
    pinned: bool | UnsetType = UNSET
    """Whether it stays loaded."""


class ModelList(Struct, frozen=True, kw_only=True):
    """List of the models' names and of their LoRA adapters."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
