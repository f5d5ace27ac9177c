from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fllm_dialects.batches.input_file import MAX_ERRORS, InputChecks, check_input, read_lines

CHECKS = InputChecks(endpoint="/v1/chat/completions", max_lines=1000, max_line_bytes=400)


def line(custom_id: Any = "a", **changes: Any) -> str:
    body = {"model": "m", "messages": []}
    value = {"custom_id": custom_id, "method": "POST", "url": CHECKS.endpoint, "body": body, **changes}
    return json.dumps({name: each for name, each in value.items() if each is not None})


def check(tmp_path: Path, text: str | bytes, checks: InputChecks = CHECKS) -> Any:
    path = tmp_path / "input"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_input(path, checks)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n  \n"])
def test_a_valid_file_has_one_request_for_each_line_that_is_not_blank(tmp_path: Path, end: str) -> None:
    result = check(tmp_path, f"\ufeff{line('a')}\n\n{line('b', body={'stream': False}, more=1)}{end}")
    assert (result.total, result.errors) == (2, [])


@pytest.mark.parametrize(
    ("text", "code", "number", "param"),
    [
        ("{", "invalid_json_line", 1, None),
        (b"\xff{}", "invalid_json_line", 1, None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", 1, None),
        (line(body={"stream": "?"}).encode().replace(b"?", b"\xff"), "invalid_json_line", 1, None),
        ("[" * 5000, "line_too_long", 1, None),
        ("[]", "invalid_request", 1, None),
        (line(None), "invalid_request", 1, "custom_id"),
        (line(5), "invalid_request", 1, "custom_id"),
        (line(""), "invalid_request", 1, "custom_id"),
        (f"{line('a')}\n\n{line('b')}\n{line('a')}", "duplicate_custom_id", 4, "custom_id"),
        (line(method="GET"), "invalid_method", 1, "method"),
        (line(url="/v1/completions"), "invalid_url", 1, "url"),
        (line(url=None), "invalid_request", 1, "url"),
        (line(body=None), "invalid_request", 1, "body"),
        (line(body=[]), "invalid_request", 1, "body"),
        (line(body={"stream": True}), "invalid_request", 1, "body.stream"),
        (line(body={"stream": "yes"}), "invalid_request", 1, "body.stream"),
        (line(body={"background": True}), "invalid_request", 1, "body.background"),
        (line(body={"x": "y" * 400}), "line_too_long", 1, None),
        ("\n \n", "empty_file", None, None),
        ("", "empty_file", None, None),
    ],
)
def test_what_is_wrong_is_reported_with_its_line(
    tmp_path: Path, text: str | bytes, code: str, number: int | None, param: str | None
) -> None:
    [error] = check(tmp_path, text).errors
    assert (error.code, error.line, error.param) == (code, number, param)
    assert error.message


def test_every_line_is_checked_up_to_a_number_of_errors(tmp_path: Path) -> None:
    errors = check(tmp_path, "\n".join([line("a"), "{", line("b", method="PUT"), "nothing"])).errors
    assert [(each.line, each.code) for each in errors] == [
        (2, "invalid_json_line"),
        (3, "invalid_method"),
        (4, "invalid_json_line"),
    ]
    errors = check(tmp_path, "{\n" * 500).errors
    assert [each.line for each in errors] == [*range(1, MAX_ERRORS + 1), None]
    assert errors[-1].code == "too_many_errors"


def test_a_file_has_a_maximum_of_requests(tmp_path: Path) -> None:
    checks = InputChecks(endpoint=CHECKS.endpoint, max_lines=2, max_line_bytes=400)
    two = f"{line('a')}\n{line('b')}\n"
    assert check(tmp_path, two, checks).errors == []
    [error] = check(tmp_path, f"{two}{line('c')}", checks).errors
    assert (error.code, error.message) == ("too_many_requests", "the file has more than 2 requests")


def test_a_line_that_is_too_long_does_not_hide_the_next(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("1234\n" + "x" * 1000 + "\n12345\n12345\r\n123456\nlast")
    assert list(read_lines(path, 5)) == [
        (1, b"1234"),
        (2, None),
        (3, b"12345"),
        (4, b"12345"),
        (5, None),
        (6, b"last"),
    ]
