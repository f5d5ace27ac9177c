"""Results of the checks of a plugin."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pluggy
from msgspec import Struct

import fllm
import fllm_api
from fllm.errors import format_error
from fllm.testing import run_contract

_SITE = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("purelib", "platlib"))
_STANDARD_LIBRARY = f"{sysconfig.get_path('stdlib')}{os.sep}"
_HARNESS = (
    *(f"{Path(str(each.__file__)).parent}{os.sep}" for each in (fllm, fllm_api, pluggy)),
    *(f"{site}hypothesis{os.sep}" for site in _SITE),
    "<",
)
"""Beginnings of the names of files that run the checks."""


class CheckResult(Struct, frozen=True):
    """Result of one check."""

    check: str
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    reason: str = ""
    """Reason why the check failed or was skipped."""


class PartResult(CheckResult, frozen=True, kw_only=True):
    """Result of one check, with the plugin and the part of it that was checked."""

    plugin: str
    part: str
    """Kind and name of an entry, or name of a hook; empty for the plugin itself."""


def check_contract(contract: type[Any]) -> Iterator[CheckResult]:
    """Run each test of a contract class, and yield its result."""
    for each in run_contract(contract):
        if each.error is None:
            yield CheckResult(each.test)
        else:
            yield CheckResult(each.test, "failed", describe_error(each.error))


def describe_error(error: BaseException) -> str:
    """Return the message and notes of an error, its type unless a contract raised it, and its place."""
    message = str(error) if isinstance(error, AssertionError) else format_error(error)
    return "\n".join([message, *getattr(error, "__notes__", ()), *_place(error)])


def _place(error: BaseException) -> Iterator[str]:
    """Yield file and line where code of a plugin raised the error; nothing if a contract raised it."""
    if error.__cause__ is None and isinstance(error, AssertionError):
        return
    while error.__cause__ is not None:
        error = error.__cause__
    frames = reversed(traceback.extract_tb(error.__traceback__))
    if place := next((frame for frame in frames if _is_of_plugin(frame.filename)), None):
        yield f"at {place.filename}, line {place.lineno}, in {place.name}"


def _is_of_plugin(file: str) -> bool:
    is_standard = file.startswith(_STANDARD_LIBRARY) and not file.startswith(_SITE)
    return not is_standard and not file.startswith(_HARNESS)
