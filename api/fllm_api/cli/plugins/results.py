"""What comes of a check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from fllm.errors import format_error
from fllm.testing import outcomes


class CheckResult(Struct, frozen=True):
    """One check."""

    check: str
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    reason: str = ""
    """Why it failed or was skipped."""


class PartResult(CheckResult, frozen=True, kw_only=True):
    """One check, and whose."""

    plugin: str
    part: str
    """A kind and the name of an entry, or a hook; empty for the plugin itself."""


def run_contract(contract: type[Any]) -> Iterator[CheckResult]:
    """Every test of a contract's subclass, as it is run."""
    for each in outcomes(contract):
        if each.error is None:
            yield CheckResult(each.test)
        else:
            yield CheckResult(each.test, "failed", told(each.error))


def told(error: Exception) -> str:
    """All that an error says: of a contract, what was asked and what came; of others, their type too."""
    said = str(error) if isinstance(error, AssertionError) else format_error(error)
    return "\n".join([said, *getattr(error, "__notes__", ())])
