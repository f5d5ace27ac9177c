"""The plugin's hooks. NumPy is imported only if the device is selected."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import BackendEntry, hookimpl
from fllm_numpy.options import NumpyOptions


@hookimpl
def fllm_backends() -> Iterable[BackendEntry]:
    """Yield the backend. ``--devices numpy`` selects it, since no other backend serves that kind."""
    yield BackendEntry(
        "numpy",
        "fllm_numpy.backend:numpy_backend",
        "GGUF models of the Llama architecture in NumPy, float32",
        devices=("numpy",),
        options=NumpyOptions,
    )
