"""Responses of `/v1/models`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class ModelObject(Struct, frozen=True, kw_only=True):
    """OpenAI's model object, with additional fields."""

    id: str
    created: int
    """Start time of the server, as Unix time in seconds."""
    object: Literal["model"] = "model"
    owned_by: str = "furiosa-llm"
    artifact_id: str
    max_prompt_len: int
    max_context_len: int
    max_model_len: int
    runtime_config: dict[str, Any]
    """Settings reported by the backend, such as device, dtype, quantization and KV-cache blocks."""


class ModelList(Struct, frozen=True, kw_only=True):
    """List of served models. It has one entry."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
