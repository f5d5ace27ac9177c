"""Errors of third-party code end, or become others, at its boundary."""

from __future__ import annotations

import pytest

from fllm.containment import contained, mapped


def test_a_contained_error_ends_and_is_handled() -> None:
    errors: list[BaseException] = []
    with contained(errors.append):
        raise ValueError("broken")
    with contained(errors.append):
        pass
    assert [str(error) for error in errors] == ["broken"]


def test_a_mapped_error_becomes_the_cause_of_another() -> None:
    with (
        pytest.raises(LookupError, match="it is broken") as caught,
        mapped(lambda e: LookupError(f"it is {e}")),
    ):
        raise ValueError("broken")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_may_be_mapped_to_itself() -> None:
    with pytest.raises(ValueError, match="broken") as caught, mapped(lambda error: error):
        raise ValueError("broken")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), ConnectionError()])
def test_some_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), contained(lambda _: None, passing=(OSError,)):
        raise error


def test_an_exit_is_contained_on_request() -> None:
    with contained(lambda _: None, base_exceptions=True):
        raise SystemExit
    with pytest.raises(KeyboardInterrupt), contained(lambda _: None, base_exceptions=True):
        raise KeyboardInterrupt
