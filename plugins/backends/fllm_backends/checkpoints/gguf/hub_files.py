"""Choose the GGUF files of a repository on the Hub by their quantization, as llama.cpp does."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from fllm.errors import ModelError

DEFAULT = "Q4_K_M"
_FILE = re.compile(
    r"(?:.*?[-._/])?((?:UD-)?(?:I?Q|TQ|BF|F|MXFP|NVFP)\d\w*?)(?:-\d{5}-of-\d{5})?\.gguf", re.IGNORECASE
)
"""A file whose name ends with a quantization, and in a split model with the part."""
_OTHER = re.compile(r"(?:^|[/._-])(?:mmproj|imatrix)", re.IGNORECASE)
"""Projectors of images and calibration data."""


def may_hold_gguf(model: str) -> bool:
    """Return whether a Hub id names GGUF files: by a quantization, or by its own name."""
    return ":" in model or "gguf" in model.lower()


def choose_files(repository: str, files: Iterable[str], name: str = "") -> list[str]:
    """Return the files of a quantization or of a file name, all parts in order; without a name of Q4_K_M.

    A repository with one quantization needs no name. Raise `ModelError`, which lists the names.
    """
    models = _by_name(files)
    if not models:
        raise ModelError(f"{repository!r} has no GGUF file")
    wanted = name or (DEFAULT if len(models) > 1 else next(iter(models)))
    for key, parts in models.items():
        if wanted.lower() in (key.lower(), *(part.lower() for part in parts)):
            return parts
    which = f"no GGUF file {wanted}" if name else f"several GGUF files, but no {DEFAULT}"
    raise ModelError(
        f"{repository!r} has {which}; append one of these to the model, after a colon: {', '.join(models)}"
    )


def _by_name(files: Iterable[str]) -> dict[str, list[str]]:
    """Return files by quantization, or by file name if that has none."""
    models: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        if file.lower().endswith(".gguf") and not _OTHER.search(file):
            match = _FILE.fullmatch(file)
            models[match[1].upper() if match else file].append(file)
    return dict(models)
