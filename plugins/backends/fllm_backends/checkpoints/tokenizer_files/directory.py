"""The directory of ``tokenizer.json``: that of the model, or one of the cache with a converted tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from fllm.containment import mapped
from fllm.errors import FllmError, ModelError, format_error
from fllm.files import read_bounded
from fllm.tokenizer import MAX_TOKENIZER_BYTES
from fllm_backends.checkpoints.cache import create_once
from fllm_backends.checkpoints.fingerprint import fingerprint

FORMAT_VERSION = 1
"""Part of the cache key. Increase it when the result of a conversion changes."""
TOKENIZER = "tokenizer.json"
_COPIED = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json", "additional_chat_templates")
_CURE = (
    "save it as tokenizer.json with AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY) of "
    "transformers"
)


class _TokenizerFile(Struct):
    """The part of ``tokenizer.json`` that every tokenizer has. The rest is skipped."""

    model: msgspec.Raw


def has_tokenizer(directory: Path) -> bool:
    """Return whether the directory has a tokenizer that can be read or converted."""
    try:
        check_tokenizer(directory)
    except ModelError:
        return False
    return True


def check_tokenizer(directory: Path) -> None:
    """Raise `ModelError` if the directory has no tokenizer that can be read or converted.

    A ``tokenizer.json`` is only read; other formats are converted.
    """
    if not (directory / TOKENIZER).exists():
        tokenizer_directory(directory)
        return
    file = directory / TOKENIZER
    try:
        msgspec.json.decode(read_bounded(file, MAX_TOKENIZER_BYTES), type=_TokenizerFile)
    except OSError as error:
        raise ModelError(f"the tokenizer {file} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(f"the tokenizer {file} can't be read: {error}") from error


def tokenizer_directory(directory: Path) -> Path:
    """Return the directory of ``tokenizer.json``; convert the tokenizer if the model has another format.

    Raise `ModelError` if there is none, or it can't be converted.
    """
    if (directory / TOKENIZER).exists():
        return directory
    source, convert = _converter(directory)
    settings = [file for name in _COPIED if (file := directory / name).is_file()]
    name = f"{fingerprint([source, *settings])[:16]}-{FORMAT_VERSION}"

    def write(target: Path) -> None:
        with mapped(
            lambda error: ModelError(f"{source} can't be converted: {format_error(error)}; {_CURE}"),
            passing=(FllmError, OSError),
            base_exceptions=True,  # the tokenizers library panics
        ):
            (target / TOKENIZER).write_text(convert(directory), "utf-8")
        for file in settings:
            shutil.copy(file, target / file.name)
        if (templates := directory / "additional_chat_templates").is_dir():
            shutil.copytree(templates, target / templates.name)

    try:
        return create_once("tokenizers", name, write)
    except OSError as error:
        raise ModelError(
            f"the tokenizer of {directory} can't be written ({error}); "
            "set FLLM_CACHE to another directory for converted tokenizers"
        ) from error


def _converter(directory: Path) -> tuple[Path, Callable[[Path], str]]:
    """Return the file that is converted, and the function that does it. Raise `ModelError` without one."""
    for name in ("tokenizer.model", "tekken.json", "vocab.json"):
        file = directory / name
        if file.exists() and (name != "vocab.json" or (directory / "merges.txt").exists()):
            return file, partial(_convert, name)
    patterns = ("*.tiktoken", "*.model", "vocab*")
    others = sorted(file.name for pattern in patterns for file in directory.glob(pattern))
    found = f"{others[0]} can't be converted; {_CURE}" if others else _CURE
    raise ModelError(f"{directory} has no tokenizer.json: {found}")


def _convert(name: str, directory: Path) -> str:
    from fllm_backends.checkpoints.gguf.tokenizer import tokenizer
    from fllm_backends.checkpoints.tokenizer_files.keys import read_tokenizer_keys

    return tokenizer(read_tokenizer_keys(directory, name)).to_str()
