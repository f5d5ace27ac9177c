"""Results of the checks of a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from fllm.errors import format_error
from fllm.testing import run_contract


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
    """Return the message and notes of an error, and its type unless a contract raised it."""
    message = str(error) if isinstance(error, AssertionError) else format_error(error)
    return "\n".join([message, *getattr(error, "__notes__", ())])
