"""JSON schemas, made simple enough that every grammar backend means the same by them."""

from fllm.structured_output.json_schema.normalize import normalize_schema

__all__ = ["normalize_schema"]
