"""Running a contract without pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct


class ContractResult(Struct, frozen=True):
    """What became of one test of a contract."""

    test: str
    """Its name as a sentence, without ``test_``."""
    error: Exception | None
    """Why it failed."""


def run_contract(contract: type[Any]) -> Iterator[ContractResult]:
    """Run every test of a contract's subclass, in order, and close what it opened, as pytest would."""
    try:
        for name in _tests(contract):
            yield ContractResult(name.removeprefix("test_").replace("_", " "), _error(contract, name))
    finally:
        getattr(contract, "teardown_class", lambda: None)()


def _tests(contract: type[Any]) -> list[str]:
    """In the order of their definition, a base class's first."""
    names = dict.fromkeys(name for base in reversed(contract.__mro__) for name in vars(base))
    return [name for name in names if name.startswith("test_")]


def _error(contract: type[Any], name: str) -> Exception | None:
    try:
        getattr(contract(), name)()
    except Exception as error:  # noqa: BLE001  a stranger's code under test: what it raises is the outcome
        return error
    return None
