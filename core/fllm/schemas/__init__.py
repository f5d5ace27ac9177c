"""JSON schemas, made simple enough that every grammar backend means the same by them."""

from fllm.schemas.simplify import simplify

__all__ = ["simplify"]
