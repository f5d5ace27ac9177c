"""The directory with the tokenizer and the settings of a model, whatever form the model has."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from fllm.errors import ModelError
from fllm.model.source import locate

GROUP = "fllm.model_files"
"""Entry point of the function that writes what a GGUF file or a Hub model has into a directory."""


def model_directory(model: str | None = None, revision: str | None = None) -> Path:
    """Return a directory in Hugging Face's layout: that of the model, or one that is written once.

    Of a GGUF file and of a Hub model, it has the tokenizer and the settings, and no weights. ``None`` is the
    embedded model. Raise `ModelError`.
    """
    if model is not None and (directory := Path(model).expanduser()).is_dir():
        return directory
    source = locate(model)
    for point in entry_points(group=GROUP):
        try:
            write = point.load()
        except ImportError as error:
            raise ModelError(
                f"{source.name}: {error}; its files need the extra `torch`: "
                "pip install 'furiosa-llm-server[torch]'"
            ) from error
        return Path(write(source.location, revision))
    raise ModelError(f"{source.name} is not a directory, and nothing is installed that reads it")
