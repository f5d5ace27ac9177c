"""Continuous batching for any device: implement `ModelRunner`, and `BatchedBackend` makes a backend of it."""

from fllm.batching.backend import BatchedBackend
from fllm.batching.limits import BatchLimits, check_length
from fllm.batching.runner import ModelRunner, Row, Sampled
from fllm.batching.verification import ends, samples, verified
from fllm.values import stop_tokens

__all__ = [
    "BatchLimits",
    "BatchedBackend",
    "ModelRunner",
    "Row",
    "Sampled",
    "check_length",
    "ends",
    "samples",
    "stop_tokens",
    "verified",
]
