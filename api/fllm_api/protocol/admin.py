"""Responses of the admin routes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fllm_api.models.model import ModelState


class AdminModel(Struct, frozen=True, kw_only=True):
    """The state of a model."""

    id: str
    object: Literal["model"] = "model"
    state: ModelState
    pinned: bool
    memory: int
    """Bytes that it occupies."""
    expected_memory: int
    """Bytes that it occupies once it is loaded: as measured the last time, else an estimate."""
    in_flight: int
    """Requests that use it."""
    waiting: int
    """Requests that wait until it is loaded."""
    loads: int
    """Times that it was loaded since the start."""
    error: str | None
    """Why the last load failed."""


class AdminReplica(Struct, frozen=True, kw_only=True):
    """The state of a replica."""

    id: str
    object: Literal["replica"] = "replica"
    model: str
    """Name of the model that it serves."""
    state: str
    """``ready``, ``starting``, ``draining``, ``drained``, or ``down``: its engine is started again."""
    requests: int
    """Requests in flight."""
    queued_tokens: int
    """Prompt tokens to compute before their first outputs."""
    total_requests: int
    """Requests that it got since the start."""
    restarts: int
    """Times that its engine ended."""


class AdminReplicaList(Struct, frozen=True, kw_only=True):
    """The state of all replicas of the loaded models."""

    object: Literal["list"] = "list"
    data: list[AdminReplica]


class AdminModelList(Struct, frozen=True, kw_only=True):
    """The state of all models."""

    object: Literal["list"] = "list"
    data: list[AdminModel]
    memory_budget: int | None
    """Bytes for all loaded models (``--memory-budget``); ``null`` means no limit."""
    memory: int
    """Bytes of all loaded models."""
