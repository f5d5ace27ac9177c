"""`/v1/models`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class ModelObject(Struct, frozen=True, kw_only=True):
    """OpenAI's model object, and what we know beyond it."""

    id: str
    created: int
    """When the server started, in Unix time."""
    object: Literal["model"] = "model"
    owned_by: str = "furiosa-llm"
    artifact_id: str
    max_prompt_len: int
    max_context_len: int
    max_model_len: int
    runtime_config: dict[str, Any]
    """What the backend reports: device, dtype, quantization, KV-cache blocks..."""


class ModelList(Struct, frozen=True, kw_only=True):
    """All models of this server: one."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
