"""Run the tests of a contract without pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from fllm.containment import contained


class ContractResult(Struct, frozen=True):
    """Result of one test of a contract."""

    test: str
    """Name of the test as a sentence, without ``test_``."""
    error: BaseException | None
    """Error that failed the test, or None if it passed."""


def run_contract(contract: type[Any]) -> Iterator[ContractResult]:
    """Run the tests of a contract's subclass in order of definition, then ``teardown_class``."""
    try:
        for name in _test_names(contract):
            yield ContractResult(name.removeprefix("test_").replace("_", " "), _run_test(contract, name))
    finally:
        getattr(contract, "teardown_class", lambda: None)()


def _test_names(contract: type[Any]) -> list[str]:
    """Return the names of the tests in order of definition, those of base classes first."""
    names = dict.fromkeys(name for base in reversed(contract.__mro__) for name in vars(base))
    return [name for name in names if name.startswith("test_")]


def _run_test(contract: type[Any], name: str) -> BaseException | None:
    """Return the error of one test; of third-party code it may be any."""
    errors: list[BaseException] = []
    with contained(errors.append):
        getattr(contract(), name)()
    return errors[0] if errors else None
