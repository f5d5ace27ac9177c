"""What this package offers; naming costs nothing, so NumPy is imported only where the device is chosen."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import BackendEntry, hookimpl
from fllm_numpy.options import NumpyOptions


@hookimpl
def fllm_backends() -> Iterable[BackendEntry]:
    """``--devices numpy`` chooses it, since no other backend serves that kind."""
    yield BackendEntry(
        "numpy",
        "fllm_numpy.backend:numpy_backend",
        "GGUF models of the Llama architecture in NumPy, float32",
        devices=("numpy",),
        options=NumpyOptions,
    )
