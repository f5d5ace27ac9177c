"""Constrain what a model may generate: grammars, token bitmasks, JSON schemas."""
