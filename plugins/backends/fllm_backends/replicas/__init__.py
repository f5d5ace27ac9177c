"""A backend that divides requests among several engines, by their prefix caches and their work."""

from fllm_backends.replicas.backend import replicas_backend

__all__ = ["replicas_backend"]
