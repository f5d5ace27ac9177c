"""Reasoning parsers, one to a file."""
