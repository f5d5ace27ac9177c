"""Locate a model and parse device names."""

from fllm.model.source import ModelSource, locate

__all__ = ["ModelSource", "locate"]
