"""The command line. Importing it loads no web framework and no model library."""

from fllm_api.cli.main import main

__all__ = ["main"]
