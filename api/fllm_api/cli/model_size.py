"""Estimate what a model will occupy, from the sizes of its files."""

from __future__ import annotations

from pathlib import Path

from fllm.containment import contained
from fllm_api.cli.settings import ENGINE_PROCESS, REPLICAS, Settings

ENGINE_BYTES = 384 * 2**20
"""Memory of an engine process apart from the weights: mostly libraries, measured with torch 2.13 on a CPU."""
WEIGHT_FILES = ("*.safetensors", "*.gguf", "*.bin")


def estimate_memory(settings: Settings) -> int:
    """Return the number of bytes that a model will occupy; without local files, those of its process only."""
    if settings.memory is not None:
        return settings.memory
    weights = 0
    with contained(lambda _: None):
        weights = _file_bytes(Path(settings.backend_config.model))
    config = settings.backend_config
    engine = weights + ENGINE_BYTES * (config.tensor_parallel_size or 1)
    if settings.backend == REPLICAS:
        return config.replicas * engine
    return engine if settings.backend == ENGINE_PROCESS else weights


def _file_bytes(model: Path) -> int:
    if model.is_file():
        return model.stat().st_size
    for pattern in WEIGHT_FILES:
        if files := [*model.glob(pattern)]:
            return sum(file.stat().st_size for file in files)
    return 0
