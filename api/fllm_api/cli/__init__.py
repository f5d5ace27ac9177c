"""The command line. Importing it loads neither a web framework nor a model library."""

from fllm_api.cli.main import main

__all__ = ["main"]
