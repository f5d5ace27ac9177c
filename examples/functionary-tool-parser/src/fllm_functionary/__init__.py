"""The tool calls of Functionary v3.1."""
