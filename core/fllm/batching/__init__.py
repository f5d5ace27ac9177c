"""Continuous batching for any device: `BatchedBackend` turns a `ModelRunner` into a backend."""

from fllm.batching.backend import BatchedBackend
from fllm.batching.limits import BatchLimits, check_length
from fllm.batching.pooling_backend import BatchedPoolingBackend
from fllm.batching.pooling_runner import PoolingRow, PoolingRunner
from fllm.batching.runner import (
    AppliesAdapters,
    KVFormat,
    ModelRunner,
    MovesBlocks,
    PromptImages,
    ReportsLoss,
    Row,
    RunnerCapabilities,
    Sampled,
    TakesImages,
)
from fllm.batching.verification import expand_drafts, num_samples, verify_drafts
from fllm.values import stop_tokens

__all__ = [
    "AppliesAdapters",
    "BatchLimits",
    "BatchedBackend",
    "BatchedPoolingBackend",
    "KVFormat",
    "ModelRunner",
    "MovesBlocks",
    "PoolingRow",
    "PoolingRunner",
    "PromptImages",
    "ReportsLoss",
    "Row",
    "RunnerCapabilities",
    "Sampled",
    "TakesImages",
    "check_length",
    "expand_drafts",
    "num_samples",
    "stop_tokens",
    "verify_drafts",
]
