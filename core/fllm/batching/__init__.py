"""Continuous batching for any device: implement `ModelRunner`, and `BatchedBackend` makes a backend of it."""

from fllm.batching.backend import BatchedBackend
from fllm.batching.limits import Limits
from fllm.batching.runner import ModelRunner, Row, Sampled
from fllm.values import stop_tokens

__all__ = ["BatchedBackend", "Limits", "ModelRunner", "Row", "Sampled", "stop_tokens"]
