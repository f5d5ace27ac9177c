"""Normalize JSON schemas, so that every grammar backend interprets them in the same way."""

from fllm.structured_output.json_schema.normalize import normalize_schema

__all__ = ["normalize_schema"]
