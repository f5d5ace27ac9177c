"""A backend that runs another one in a child process, so that API and engine never share the GIL."""

from fllm_backends.process.backend import process_backend

__all__ = ["process_backend"]
