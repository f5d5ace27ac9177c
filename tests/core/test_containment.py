"""Errors of third-party code end, or become others, at its boundary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fllm.containment import contained, mapped, mapped_list


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


def pieces(text: str) -> Iterator[str]:
    yield text
    if text == "lost":
        raise ConnectionError(text)
    if text == "broken":
        raise ValueError(text)


def test_what_a_function_yields_is_listed_and_its_errors_are_mapped() -> None:
    call = mapped_list(pieces, lambda error: LookupError(f"it is {error}"), passing=(OSError,))
    assert call("whole") == ["whole"]
    with pytest.raises(LookupError, match="it is broken") as caught:
        call("broken")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ConnectionError):
        call("lost")
    with pytest.raises(ValueError, match="broken"):
        mapped_list(pieces, lambda error: error)("broken")
