"""Read the JSON files of a model directory, as transformers does, with a limited size."""

from __future__ import annotations

import json
import logging
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fllm.errors import ModelError
from fllm.files import read_bounded

T = TypeVar("T")
log = logging.getLogger("fllm.model")

MAX_JSON_BYTES = 64 * 1024**2
"""Maximum size of a configuration or an index. The index of 90,000 tensors has 8 MiB."""
_EXACT_FLOATS = 2**53


def read_json(path: Path, kind: type[T]) -> T:
    """Decode a file as ``kind``; raise `ModelError` with the file's name if that fails.

    A number such as 1e6 is an integer, too. ``NaN`` and ``Infinity`` are numbers, in no range. Of a key that
    occurs twice in an object, the last value counts, with a warning.
    """
    repeated: list[str] = []
    try:
        value = json.loads(
            read_bounded(path, MAX_JSON_BYTES),
            object_pairs_hook=partial(_object, repeated),
            parse_float=_number,
        )
        if repeated:
            _warn_once(path, repeated[0])
        return msgspec.convert(value, kind)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    except RecursionError as error:
        raise ModelError(f"{path} is invalid: it is nested too deeply") from error
    except ValueError as error:  # of msgspec, json and Unicode
        raise ModelError(f"{path} is invalid: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Decode a file as a JSON object of any content; return ``{}`` if the file does not exist."""
    return read_json(path, dict[str, Any]) if os.path.lexists(path) else {}


def convert(value: Any, kind: type[T], where: str) -> T:
    """Convert decoded JSON to ``kind``; raise `ModelError` that begins with ``where`` if that fails."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ModelError(f"{where}: {error}") from error


def _object(repeated: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; add to ``repeated`` the first key of all that has two different values."""
    value = dict(pairs)
    if len(value) != len(pairs) and not repeated:
        repeated += [key for key, other in pairs if str(other) != str(value[key])][:1]
    return value


@lru_cache(100)
def _warn_once(path: Path, key: str) -> None:
    log.warning("%s: the key %.100r occurs twice; the last value counts", path, key)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= _EXACT_FLOATS else number
