"""Locate a model and its files, and parse device names."""

from fllm.model.files import model_directory
from fllm.model.source import ModelSource, locate

__all__ = ["ModelSource", "locate", "model_directory"]
