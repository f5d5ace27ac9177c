"""Tool-call parsers, one file for each format."""
