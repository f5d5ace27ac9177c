"""Find the image processor of a vision-language model by its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm_backends.checkpoints.json_files import read_json

_FILES = ("processor_config.json", "preprocessor_config.json")
"""Files with the settings of a processor, of which images are one part."""


def has_image_processor(directory: Path) -> bool:
    """Return whether a directory has a vision-language model with the settings of its image processor."""
    return bool(_read(directory)) and "vision_config" in read_json(directory / "config.json", dict[str, Any])


def processor_classes(directory: Path) -> list[str]:
    """Return the names of the processor's class that the files give, the best first."""
    names = (settings.get("processor_class") for settings in _read(directory))
    return [name for name in names if isinstance(name, str)]


def _read(directory: Path) -> list[dict[str, Any]]:
    files = (directory / name for name in _FILES)
    return [read_json(file, dict[str, Any]) for file in files if file.is_file()]
