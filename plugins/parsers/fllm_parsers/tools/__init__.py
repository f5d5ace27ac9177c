"""Tool-call parsers, one to a file."""
