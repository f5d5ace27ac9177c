"""Read the JSON files of a model directory: strict JSON of a limited size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from fllm.errors import ModelError
from fllm.files import read_bounded

T = TypeVar("T")

MAX_JSON_BYTES = 64 * 1024**2
"""Maximum size of a configuration or an index. The index of 90,000 tensors has 8 MiB."""
_EXACT_FLOATS = 2**53


def read_json(path: Path, kind: type[T]) -> T:
    """Decode a file as ``kind``; raise `ModelError` with the file's name if that fails.

    A number such as 1e6 is an integer, too. A key must not occur twice in an object.
    """
    try:
        value = json.loads(
            read_bounded(path, MAX_JSON_BYTES),
            object_pairs_hook=_object,
            parse_float=_number,
            parse_constant=_reject_constant,
        )
        return msgspec.convert(value, kind)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    except RecursionError as error:
        raise ModelError(f"{path} is invalid: it is nested too deeply") from error
    except ValueError as error:  # of msgspec, json, Unicode and the functions below
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return value


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= _EXACT_FLOATS else number


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
