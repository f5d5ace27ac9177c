"""A backend in a process of its own, so that the API's event loop and the engine never share a lock."""

from fllm_backends.process.backend import process_backend

__all__ = ["process_backend"]
