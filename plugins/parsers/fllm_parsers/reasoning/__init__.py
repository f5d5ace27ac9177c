"""Reasoning parsers, one file for each format."""
